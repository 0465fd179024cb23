//! Compiles the node's protobuf contract in pure Rust: no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../../crds/proto";
    let file = format!("{root}/headwater/node/v1/node.proto");
    println!("cargo:rerun-if-changed={file}");
    let descriptors = protox::compile([&file], [root])?;
    prost_build::Config::new().btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}
