"""The gateway's settings: read once from the environment, checked, then passed down."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from headwater_api.ids import GatewayId, RegionName
from headwater_api.wellknown import (
    ENV_API_KEYS_DIR,
    ENV_GATEWAY_TLS_DIR,
    ENV_NODE_TLS_DIR,
    ENV_NODE_TOKEN,
    ENV_POD_IP,
    ENV_POD_NAME,
    ENV_POD_NAMESPACE,
    ENV_REGION,
    ENV_TURN_SECRETS_DIR,
    PORT_ADMIN,
    PORT_GATEWAY_TLS,
    PORT_SIGNAL,
)

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
ENV_REDIS_URL: Final = "HEADWATER_REDIS_URL"
ENV_REDIS_PASSWORD: Final = "HEADWATER_REDIS_PASSWORD"
_PACKAGE_WEB = Path(__file__).resolve().parents[2] / "web"


class SettingsError(ValueError):
    """A variable that is missing or wrong; the message names it and the fix."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One field for each variable; `from_environment` documents them."""

    gateway: GatewayId
    namespace: str
    bind_address: str
    signal_port: int
    admin_port: int
    api_keys_dir: Path
    turn_secrets_dir: Path | None
    node_token: str
    node_tls_dir: Path | None
    gateway_tls_dir: Path | None
    gateway_tls_port: int
    region: RegionName | None
    default_region: RegionName | None
    region_override: bool
    auto_create_rooms: bool
    geoip_database: Path | None
    trusted_proxies: tuple[Network, ...]
    proxy_protocol: bool
    max_connections_per_address: int
    max_joins_per_address: int
    allowed_origins: frozenset[str]
    max_frame_bytes: int
    web_dir: Path
    public_url: str
    region_urls: Mapping[str, str]
    token_audience: str
    chat_database: str
    webhook_urls: tuple[str, ...]
    webhook_api_key: str
    log_level: str
    log_format: str
    redis_url: str
    redis_password: str
    shutdown_seconds: float

    def __repr__(self) -> str:
        """Without the token, so that a log line cannot hold it."""
        return f"Settings(gateway={self.gateway!r}, bind_address={self.bind_address!r}:{self.signal_port})"


def from_environment(env: Mapping[str, str]) -> Settings:
    """Read the settings. SettingsError names the variable.

    POD_NAME, POD_NAMESPACE, POD_IP: from the downward API; POD_IP is the address that is bound.
    HEADWATER_API_KEYS_DIR: directory, one file for each API key (name: key, content: secret). Required.
    HEADWATER_TURN_SECRETS_DIR: directory with <Secret>/<key>, which sign TURN credentials. Unset: no TURN.
    HEADWATER_NODE_TOKEN: bearer token of the SFU nodes, from a Secret. Required.
    HEADWATER_NODE_TLS_DIR: directory with ca.crt, which SFU nodes made with TLS are checked by.
    HEADWATER_GATEWAY_TLS_DIR: directory with tls.crt and tls.key for gateway.headwater, and ca.crt: gateways
        reach each other by TLS. HEADWATER_GATEWAY_TLS_PORT: where; default 7881.
    HEADWATER_REGION: region this gateway runs in; the fallback default region.
    HEADWATER_DEFAULT_REGION: region of clients whose location is unknown.
    HEADWATER_REGION_OVERRIDE: true lets a client choose with ?region= (tests, demos). Default false.
    HEADWATER_AUTO_CREATE_ROOMS: false admits only rooms that a Meeting declares. Default true.
    HEADWATER_GEOIP_DATABASE: path of a GeoIP2 or GeoLite2 City or Country database (MMDB).
    HEADWATER_TRUSTED_PROXIES: comma-separated CIDRs whose X-Forwarded-For and PROXY headers are believed.
    HEADWATER_PROXY_PROTOCOL: true expects PROXY protocol v1 or v2 from the trusted proxies. Default false.
    HEADWATER_MAX_CONNECTIONS_PER_ADDRESS: WebSockets of one client address, 0: no limit. Default 1000.
    HEADWATER_MAX_JOINS_PER_ADDRESS: joins a second of one client address, 0: no limit. Default 100.
    HEADWATER_ALLOWED_ORIGINS: comma-separated origins (https://app.example) of pages. Default: any.
    HEADWATER_MAX_FRAME_BYTES: largest signalling frame. Default 524288.
    HEADWATER_WEB_DIR: directory of the demo page.
    HEADWATER_PUBLIC_URL: where clients reach the gateways (https://…). Default: as the caller did.
    HEADWATER_REGION_URLS: region=https://…, comma-separated: where WHIP and WHEP clients are sent,
        and where clients measure their round trips (GET /v1/regions).
    HEADWATER_TOKEN_AUDIENCE: `aud` that access tokens must have. Default: none is asked for.
    HEADWATER_CHAT_DATABASE: sqlite: (in memory), sqlite:/path or postgresql://… Default sqlite:.
    HEADWATER_WEBHOOK_URLS: comma-separated URLs that are told what happens in rooms.
    HEADWATER_WEBHOOK_API_KEY: the API key that signs those requests. Required with URLs.
    HEADWATER_REDIS_URL: redis://[user@]host:port[/db] or rediss:// of the directory that gateways share.
    Without it, or while it is away, hashing decides and nodes keep the snapshots. No password in it.
    HEADWATER_REDIS_PASSWORD: its password, from a Secret.
    HEADWATER_SIGNAL_PORT, HEADWATER_ADMIN_PORT: default 7880, 9090.
    HEADWATER_SHUTDOWN_SECONDS: time to send sessions away on SIGTERM. Default 10.
    HEADWATER_LOG_LEVEL: debug, info, warning or error. Default info.
    HEADWATER_LOG_FORMAT: json or console. Default json.
    """
    read = _Reader(env)
    return Settings(
        gateway=GatewayId(read.text(ENV_POD_NAME, "gateway")),
        namespace=read.text(ENV_POD_NAMESPACE, "default"),
        bind_address=read.address(ENV_POD_IP, "127.0.0.1"),
        signal_port=read.integer("HEADWATER_SIGNAL_PORT", PORT_SIGNAL, 0, 65535),
        admin_port=read.integer("HEADWATER_ADMIN_PORT", PORT_ADMIN, 0, 65535),
        api_keys_dir=read.directory(ENV_API_KEYS_DIR),
        turn_secrets_dir=Path(turn) if (turn := read.text(ENV_TURN_SECRETS_DIR)) else None,
        node_token=read.required(ENV_NODE_TOKEN, "the token that SFU nodes ask for, from its Secret"),
        node_tls_dir=Path(tls) if (tls := read.text(ENV_NODE_TLS_DIR)) else None,
        gateway_tls_dir=Path(tls) if (tls := read.text(ENV_GATEWAY_TLS_DIR)) else None,
        gateway_tls_port=read.integer("HEADWATER_GATEWAY_TLS_PORT", PORT_GATEWAY_TLS, 0, 65535),
        region=_region(read.text(ENV_REGION)),
        default_region=_region(read.text("HEADWATER_DEFAULT_REGION")),
        region_override=read.flag("HEADWATER_REGION_OVERRIDE", False),
        auto_create_rooms=read.flag("HEADWATER_AUTO_CREATE_ROOMS", True),
        geoip_database=read.file("HEADWATER_GEOIP_DATABASE"),
        trusted_proxies=read.networks("HEADWATER_TRUSTED_PROXIES"),
        proxy_protocol=read.flag("HEADWATER_PROXY_PROTOCOL", False),
        max_connections_per_address=read.integer("HEADWATER_MAX_CONNECTIONS_PER_ADDRESS", 1000, 0, 1_000_000),
        max_joins_per_address=read.integer("HEADWATER_MAX_JOINS_PER_ADDRESS", 100, 0, 1_000_000),
        allowed_origins=frozenset(url.lower() for url in read.urls("HEADWATER_ALLOWED_ORIGINS")),
        max_frame_bytes=read.integer("HEADWATER_MAX_FRAME_BYTES", 524_288, 65_536, 16_777_216),
        public_url=_http(read.text("HEADWATER_PUBLIC_URL")),
        region_urls=read.by_name("HEADWATER_REGION_URLS"),
        token_audience=read.text("HEADWATER_TOKEN_AUDIENCE"),
        chat_database=_database(read.text("HEADWATER_CHAT_DATABASE", "sqlite:")),
        webhook_urls=(urls := read.urls("HEADWATER_WEBHOOK_URLS")),
        webhook_api_key=(read.required if urls else read.text)(
            "HEADWATER_WEBHOOK_API_KEY", "the API key that signs webhooks" if urls else ""
        ),
        web_dir=Path(read.text("HEADWATER_WEB_DIR") or _PACKAGE_WEB),
        log_level=read.choice("HEADWATER_LOG_LEVEL", ("info", "debug", "warning", "error")),
        log_format=read.choice("HEADWATER_LOG_FORMAT", ("json", "console")),
        redis_url=_redis_url(read.text(ENV_REDIS_URL)),
        redis_password=read.text(ENV_REDIS_PASSWORD),
        shutdown_seconds=read.integer("HEADWATER_SHUTDOWN_SECONDS", 10, 0, 3600),
    )


def _redis_url(text: str) -> str:
    parts = urlsplit(text)
    if text and (parts.scheme not in ("redis", "rediss") or not parts.hostname):
        raise SettingsError(f"{ENV_REDIS_URL} must be redis://host:port or rediss://host:port")
    if parts.password:
        raise SettingsError(
            f"{ENV_REDIS_URL} holds a password: put it into {ENV_REDIS_PASSWORD}, from a Secret"
        )
    return text


def _database(url: str) -> str:
    if urlsplit(url).scheme not in ("sqlite", "postgresql", "postgres"):
        raise SettingsError("HEADWATER_CHAT_DATABASE must be sqlite:, sqlite:/path or postgresql://…")
    return url


def _http(url: str) -> str:
    """wss:// and https:// are the same place."""
    url = url.rstrip("/")
    return "http" + url.removeprefix("ws") if url.startswith(("ws://", "wss://")) else url


def _region(text: str) -> RegionName | None:
    return RegionName(text) if text else None


@dataclass(frozen=True, slots=True)
class _Reader:
    """Typed reads of variables; each error names its variable."""

    env: Mapping[str, str]

    def text(self, name: str, default: str = "") -> str:
        return self.env.get(name, "").strip() or default

    def required(self, name: str, what: str) -> str:
        value = self.text(name)
        if not value:
            raise SettingsError(f"{name} is not set: it must hold {what}")
        return value

    def address(self, name: str, default: str) -> str:
        value = self.text(name, default)
        try:
            return str(ipaddress.ip_address(value))
        except ValueError:
            raise SettingsError(f"{name} must be an IP address, is {value!r}") from None

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        value = self.text(name, str(default))
        if not (value.isascii() and value.isdigit() and low <= int(value) <= high):
            raise SettingsError(f"{name} must be a number from {low} to {high}, is {value!r}")
        return int(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.text(name, str(default)).lower()
        if value not in ("true", "false"):
            raise SettingsError(f"{name} must be true or false, is {value!r}")
        return value == "true"

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        value = self.text(name, choices[0]).lower()
        if value not in choices:
            raise SettingsError(f"{name} must be one of {', '.join(choices)}, is {value!r}")
        return value

    def directory(self, name: str) -> Path:
        path = Path(self.required(name, "the directory of the API keys, one file each"))
        if not path.is_dir():
            raise SettingsError(f"{name}: {path} is not a directory")
        return path

    def file(self, name: str) -> Path | None:
        value = self.text(name)
        if not value:
            return None
        if not Path(value).is_file():
            raise SettingsError(f"{name}: {value} is not a file")
        return Path(value)

    def by_name(self, name: str) -> Mapping[str, str]:
        pairs = [part.strip().partition("=") for part in self.text(name).split(",") if part.strip()]
        for key, _, url in pairs:
            if not key or urlsplit(url).scheme not in ("http", "https"):
                raise SettingsError(f"{name} must be region=https://… joined by ',', has {key!r}")
        return {key: url.rstrip("/") for key, _, url in pairs}

    def urls(self, name: str) -> tuple[str, ...]:
        parts = tuple(part.strip() for part in self.text(name).split(",") if part.strip())
        for part in parts:
            if urlsplit(part).scheme not in ("http", "https") or not urlsplit(part).hostname:
                raise SettingsError(f"{name} must be http or https URLs joined by ',', has {part!r}")
        return parts

    def networks(self, name: str) -> tuple[Network, ...]:
        parts = [part.strip() for part in self.text(name).split(",") if part.strip()]
        try:
            return tuple(ipaddress.ip_network(part) for part in parts)
        except ValueError as error:
            raise SettingsError(f"{name} must be CIDRs joined by ',': {error}") from None
