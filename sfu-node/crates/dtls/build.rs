//! Takes dimpl's source from where Cargo has it and changes three lines, so that the server asks clients for
//! certificates with RSA as well as with ECDSA. Why, and when this goes away: docs/decisions/0110.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// File, what is there exactly once, and what takes its place.
const CHANGES: [(&str, &str, &str); 3] = [
    (
        "dtls12/message/mod.rs",
        "pub const fn supported() -> &'static [ClientCertificateType; 1] {
        &[ClientCertificateType::ECDSA_SIGN]",
        "pub const fn supported() -> &'static [ClientCertificateType; 2] {
        &[ClientCertificateType::ECDSA_SIGN, ClientCertificateType::RSA_SIGN]",
    ),
    (
        "dtls12/message/mod.rs",
        "pub const fn supported() -> &'static [SignatureAndHashAlgorithm; 2] {
        const SUPPORTED: &[SignatureAndHashAlgorithm; 2] = &[",
        "pub const fn supported() -> &'static [SignatureAndHashAlgorithm; 4] {
        const SUPPORTED: &[SignatureAndHashAlgorithm; 4] = &[
            SignatureAndHashAlgorithm::new(HashAlgorithm::SHA256, SignatureAlgorithm::RSA),
            SignatureAndHashAlgorithm::new(HashAlgorithm::SHA384, SignatureAlgorithm::RSA),",
    ),
    (
        "dtls12/server.rs",
        "cert_types.push(ClientCertificateType::ECDSA_SIGN);",
        "cert_types.push(ClientCertificateType::ECDSA_SIGN);
    cert_types.push(ClientCertificateType::RSA_SIGN);",
    ),
];

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    for file in ["build.rs", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={file}");
    }
    let made = Path::new(&env::var("OUT_DIR")?).join("dimpl");
    if made.exists() {
        fs::remove_dir_all(&made)?;
    }
    copy(&source()?, &made)?;
    for (file, before, after) in CHANGES {
        edit(&made.join(file), |text| match text.matches(before).count() {
            1 => Ok(text.replace(before, after)),
            n => {
                let wrong = format!("dimpl's src/{file} has the text to replace {n} times, not once");
                Err(format!("{wrong}; see docs/decisions/0110: {before}").into())
            }
        })?;
    }
    // What may only stand at the top of a crate's first file: this one is included.
    edit(&made.join("lib.rs"), |text| {
        let is_inner = |line: &&str| line.starts_with("//!") || line.starts_with("#![");
        Ok(text.lines().filter(|line| !is_inner(line)).collect::<Vec<_>>().join("\n"))
    })
}

/// dimpl's `src`. Cargo compared it with the hash in Cargo.lock when it fetched it.
fn source() -> Result<PathBuf> {
    // Offline fails where Cargo has fetched only a part of what the lock file names, this crate not being in it.
    let text = metadata(&["--offline"]).or_else(|_| metadata(&[]))?;
    let (_, crate_and_rest) =
        text.split_once(r#""name":"dimpl","version":""#).ok_or("no dimpl in Cargo.lock")?;
    let (_, path_and_rest) =
        crate_and_rest.split_once(r#""manifest_path":""#).ok_or("dimpl without a manifest")?;
    let (path, _) = path_and_rest.split_once('"').ok_or("cargo metadata is cut short")?;
    Ok(Path::new(path).with_file_name("src"))
}

fn metadata(more: &[&str]) -> Result<String> {
    let mut cargo = Command::new(env::var("CARGO")?);
    let done = cargo.args(["metadata", "--locked", "--format-version=1"]).args(more).output()?;
    if !done.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&done.stderr)).into());
    }
    Ok(String::from_utf8(done.stdout)?)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let there = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &there)?;
        } else {
            fs::write(&there, fs::read(entry.path())?)?;
            if there.extension().is_some_and(|extension| extension == "rs") {
                edit(&there, |text| Ok(without_tests(text)))?;
            }
        }
    }
    Ok(())
}

/// dimpl's own tests need crates that we do not have.
fn without_tests(text: &str) -> String {
    text.replace("#[cfg(test)]", "#[cfg(any())]").replace("#[cfg(all(test,", "#[cfg(all(any(),")
}

fn edit(file: &Path, change: impl FnOnce(&str) -> Result<String>) -> Result<()> {
    Ok(fs::write(file, change(&fs::read_to_string(file)?)?)?)
}
