"""An S3 location -> credentials, region and endpoint, resolved once by botocore and handed to everybody."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import botocore.session
from botocore.exceptions import BotoCoreError, ProfileNotFound

from manifests.storage import Location

OPTIONS = ("key", "secret", "token", "profile", "endpoint_url", "region", "anon", "addressing_style")
_OTHER_WAYS = (
    "a profile in ~/.aws, instance metadata, options key and secret, or anon=true for public buckets"
)
_STYLES = ("path", "virtual", "auto")


@dataclass(frozen=True, repr=False)
class Access:
    """Frozen answers to who we are and where the bucket is. Temporary credentials expire: resolve again."""

    key: str | None  # None: anonymous, requests are not signed
    secret: str | None
    token: str | None
    region: str
    endpoint_url: str | None  # None: Amazon's
    style: str  # addressing: "path", "virtual" or "auto"

    def config(self) -> dict[str, object]:
        """Settings for botocore and aiobotocore alike."""
        settings: dict[str, object] = {
            "s3": {"addressing_style": self.style},
            "retries": {"mode": "standard", "max_attempts": 5},
            "connect_timeout": 10,  # seconds
            "read_timeout": 60,
            "max_pool_connections": 50,
        }
        if self.endpoint_url:
            # Checksums in trailers are Amazon's: Ceph 16 answers 411 or stores them as content.
            settings |= {
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            }
        return settings


def check_options(options: Mapping[str, str]) -> None:
    """ValueError for an option that S3 locations do not have, or a value that it cannot take."""
    for name in options:
        if name not in OPTIONS:
            raise ValueError(f"S3 option {name!r}, expected one of {', '.join(OPTIONS)}")
    if ("key" in options) != ("secret" in options):
        raise ValueError("S3 options key and secret, expected both or neither")
    if options.get("addressing_style", "auto") not in _STYLES:
        raise ValueError(
            f"S3 option addressing_style={options['addressing_style']!r}, expected {', '.join(_STYLES)}"
        )
    if options.get("anon", "false").lower() not in ("true", "false"):
        raise ValueError(f"S3 option anon={options['anon']!r}, expected true or false")
    if options.get("endpoint_url", "https://x").partition("://")[0] not in ("http", "https"):
        raise ValueError(f"S3 option endpoint_url={options['endpoint_url']!r}, expected http:// or https://")


def resolve(location: Location) -> Access:
    """What options, environment, profiles and instance metadata say now, in botocore's order."""
    options = dict(location.options)
    check_options(options)
    key, secret, token = options.get("key"), options.get("secret"), options.get("token")
    anonymous = options.get("anon", "false").lower() == "true"
    try:
        session = botocore.session.Session(profile=options.get("profile"))
        if key is None and not anonymous:
            credentials = session.get_credentials()
            if credentials is None:
                raise PermissionError(
                    f"no credentials for {location}: expected AWS_ACCESS_KEY_ID, {_OTHER_WAYS}"
                )
            frozen = credentials.get_frozen_credentials()
            key, secret, token = frozen.access_key, frozen.secret_key, frozen.token
        endpoint_url = options.get("endpoint_url") or _endpoint_url(session)
        region = options.get("region") or session.get_config_variable("region") or "us-east-1"
    except ProfileNotFound as error:
        raise ValueError(f"{error} (for {location})") from None
    except BotoCoreError as error:
        raise PermissionError(f"no credentials for {location}: {error}") from error
    style = options.get("addressing_style", "path" if endpoint_url else "auto")
    if anonymous:
        key = secret = token = None
    return Access(key, secret, token, region, endpoint_url, style)


def _endpoint_url(session: botocore.session.Session) -> str | None:
    """The endpoint that environment or profile set for S3, else the one that they set for all services."""
    if session.get_config_variable("ignore_configured_endpoint_urls"):
        return None
    profile = session.get_scoped_config()
    services = session.full_config.get("services", {}).get(profile.get("services"), {})
    found = (
        os.environ.get("AWS_ENDPOINT_URL_S3"),
        os.environ.get("AWS_ENDPOINT_URL"),
        services.get("s3", {}).get("endpoint_url"),
        profile.get("endpoint_url"),
    )
    return next((url for url in found if url), None)


def delta_options_of(access: Access) -> dict[str, str]:
    """For deltalake. Every name is set: what is left out, it would take from the environment."""
    options = {
        "AWS_REGION": access.region,
        "AWS_ACCESS_KEY_ID": access.key or "",
        "AWS_SECRET_ACCESS_KEY": access.secret or "",
        "AWS_SESSION_TOKEN": access.token or "",
        "AWS_SKIP_SIGNATURE": "true" if access.key is None else "false",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true" if access.style == "virtual" else "false",
        "AWS_ALLOW_HTTP": "true" if (access.endpoint_url or "").startswith("http://") else "false",
    }
    if access.endpoint_url:
        options["AWS_ENDPOINT_URL"] = access.endpoint_url
    return options
