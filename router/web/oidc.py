"""Logging in with the hospital's own accounts: OpenID Connect, authorization code flow with PKCE.

Who a person is, and to which groups they belong, is the provider's word, asked at each login; what a group may do is
ours (`web.oidc` in the settings). No token of the provider is kept: a session of ours begins.
Source: OpenID Connect Core 1.0 (3.1), RFC 7636 (PKCE), RFC 9207 (issuer in the answer), RFC 9700 (best practice)
"""

import base64
import hashlib
import json
import os
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlencode

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from dicom_sr.problem import Problem
from router.config import Oidc
from router.domain.access import Role

SECRET = "ISOCENTER_OIDC_SECRET"
TIMEOUT_S = 10.0
KNOWN_FOR_S = 3600.0
"""How long the provider's description of itself is believed."""
AGAIN_AFTER_S = 60.0
"""How often its keys are fetched again at most, for a key that we do not know."""
LEEWAY_S = 60
ALGORITHMS = ("RS256", "PS256", "ES256", "ES384")
"""Signatures that we believe; none that is made with our own secret."""


class ProviderUnreachable(Problem):
    """The provider of accounts does not answer as it should."""

    retryable = True


class NotLetIn(Problem):
    """The provider's answer does not let anybody in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One login under way, kept by the browser that began it."""

    state: str
    nonce: str
    verifier: str
    goal: str

    def kept(self) -> str:
        """As a cookie."""
        return base64.urlsafe_b64encode(json.dumps(asdict(self)).encode()).decode()

    @classmethod
    def of(cls, text: str) -> "Attempt | None":
        """The attempt in a cookie; None where there is none."""
        try:
            found = json.loads(base64.urlsafe_b64decode(text.encode()))
            made = cls(**found)
        except (ValueError, TypeError):
            return None
        return made if all(isinstance(one, str) for one in asdict(made).values()) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Whom the provider knows. `subject` is theirs for ever, the name may change."""

    subject: str
    name: str
    role: Role


@dataclass(slots=True)
class Description:
    """What the provider says of itself, and its keys. Times by the monotonic clock, in seconds."""

    endpoints: Mapping[str, Any]
    keys: KeySet
    at: float
    keys_at: float


class Provider:
    """The provider of the settings."""

    def __init__(self, settings: Oidc, home: str) -> None:
        self.settings = settings
        self.back = f"{home}/login/oidc/done"
        self.lock = threading.Lock()
        self.known: Description | None = None

    def begin(self, goal: str) -> tuple[str, Attempt]:
        """Where to send the browser, and what it keeps meanwhile.

        Raises:  ProviderUnreachable
        """
        attempt = Attempt(
            state=secrets.token_urlsafe(24),
            nonce=secrets.token_urlsafe(24),
            verifier=secrets.token_urlsafe(48),
            goal=goal,
        )
        digest = hashlib.sha256(attempt.verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": self.back,
            "scope": " ".join(self.settings.scopes),
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        address = str(self.describe().endpoints["authorization_endpoint"])
        return f"{address}{'&' if '?' in address else '?'}{urlencode(asked)}", attempt

    def finish(self, attempt: Attempt | None, answer: Mapping[str, str]) -> Known:
        """Who has logged in there, by what the browser brought back.

        Raises:  NotLetIn, ProviderUnreachable
        """
        if attempt is None or not secrets.compare_digest(attempt.state.encode(), answer.get("state", "").encode()):
            raise NotLetIn("this login was not begun in this browser, or too long ago", remedy="Begin it again")
        if answer.get("iss", self.settings.issuer) != self.settings.issuer:
            raise NotLetIn("another provider than ours has answered", remedy="Begin it again")
        if "code" not in answer:
            said = "".join(one for one in answer.get("error", "no code")[:60] if one.isalnum() or one in "_ ")
            raise NotLetIn(f"the provider has not let anybody in ({said})", remedy="Begin it again")
        tokens = self._tokens(answer["code"], attempt.verifier)
        claims = self._claims(str(tokens.get("id_token", "")), attempt.nonce)
        if self.settings.groups_claim not in claims or self.settings.name_claim not in claims:
            claims = self._more(str(tokens.get("access_token", "")), claims) | claims
        return self.person(claims)

    def person(self, claims: Mapping[str, Any]) -> Known:
        """Who these claims are about, and what they are here.

        Raises:  NotLetIn
        """
        name = str(claims.get(self.settings.name_claim, "")).strip().lower()
        given = claims.get(self.settings.groups_claim, ())
        listed = given if isinstance(given, list) else [given]
        groups = {one for one in listed if isinstance(one, str)}
        wanted = {
            Role.ADMIN: self.settings.admins,
            Role.OPERATOR: self.settings.operators,
            Role.VIEWER: self.settings.viewers,
        }
        role = next((role for role, several in wanted.items() if groups & set(several)), None)
        if role is None:
            raise NotLetIn(
                "this account is in no group that may use Isocenter",
                remedy="Ask for one of them, or an admin for a user",
            )
        return Known(subject=f"{self.settings.issuer} {claims['sub']}", name=name, role=role)

    def describe(self) -> Description:
        """What the provider says of itself, an hour old at most.

        Raises:  ProviderUnreachable
        """
        with self.lock:
            if self.known is None or self.known.at < time.monotonic() - KNOWN_FOR_S:
                issuer = (self.settings.issuer or "").rstrip("/")
                endpoints = self._get(f"{issuer}/.well-known/openid-configuration")
                if endpoints.get("issuer") != self.settings.issuer:
                    raise ProviderUnreachable(
                        f"the provider at {self.settings.issuer} calls itself {str(endpoints.get('issuer'))[:200]}",
                        remedy="Write web.oidc.issuer exactly so, where that is who you mean",
                    )
                missing = {"authorization_endpoint", "token_endpoint", "jwks_uri"} - endpoints.keys()
                if missing:
                    raise ProviderUnreachable(
                        f"the provider does not say its {', '.join(sorted(missing))}",
                        remedy="Is it an OpenID provider?",
                    )
                at = time.monotonic()
                self.known = Description(endpoints, self._keys(endpoints), at, at)
            return self.known

    def _keys(self, endpoints: Mapping[str, Any]) -> KeySet:
        try:
            return KeySet.import_key_set(self._get(str(endpoints["jwks_uri"])))  # type: ignore[arg-type]
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise _wrong("its keys cannot be read", error) from error

    def _claims(self, id_token: str, nonce: str) -> dict[str, Any]:
        """What the provider has signed about this person.

        Raises:  NotLetIn, ProviderUnreachable
        Source:  OpenID Connect Core 1.0, 3.1.3.7 (ID Token validation)
        """
        known = self.describe()
        try:
            token = jwt.decode(id_token, known.keys, algorithms=ALGORITHMS)
        except (JoseError, ValueError) as error:
            if known.keys_at > time.monotonic() - AGAIN_AFTER_S:
                raise _unbelieved(error) from error
            with self.lock:
                known.keys, known.keys_at = self._keys(known.endpoints), time.monotonic()
            try:
                token = jwt.decode(id_token, known.keys, algorithms=ALGORITHMS)
            except (JoseError, ValueError) as second:
                raise _unbelieved(second) from second
        claims = dict(token.claims)
        issuer, us = self.settings.issuer or "", self.settings.client_id or ""
        rules = jwt.JWTClaimsRegistry(
            leeway=LEEWAY_S,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": us},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        try:
            rules.validate(claims)
        except (JoseError, ValueError, TypeError) as error:
            raise _unbelieved(error) from error
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if claims.get("azp", us) != us or (several and "azp" not in claims):
            raise NotLetIn("the provider's word is for another program", remedy="Begin it again")
        return claims

    def _tokens(self, code: str, verifier: str) -> dict[str, Any]:
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": self.back, "code_verifier": verifier}
        us = (self.settings.client_id or "", self.secret())
        try:
            answer = httpx.post(
                str(self.describe().endpoints["token_endpoint"]), data=form, auth=us, timeout=TIMEOUT_S,
            )  # fmt: skip
            if answer.status_code in (400, 401, 403):
                raise NotLetIn(f"the provider does not take this login ({answer.status_code})", remedy="Begin it again")
            return _object(answer)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise _wrong("its token endpoint does not answer", error) from error

    def _more(self, access_token: str, claims: Mapping[str, Any]) -> dict[str, Any]:
        """What the provider tells of this person beside what it has signed; nothing where it tells nothing."""
        address = self.describe().endpoints.get("userinfo_endpoint")
        if not address or not access_token:
            return {}
        found = self._get(str(address), authorization=f"Bearer {access_token}")
        if found.get("sub") != claims["sub"]:
            raise NotLetIn("the provider speaks of two people", remedy="Begin it again")
        return found

    def _get(self, address: str, **headers: str) -> dict[str, Any]:
        try:
            return _object(httpx.get(address, headers=headers, timeout=TIMEOUT_S))
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise _wrong(f"{httpx.URL(address).path} does not answer", error) from error

    def secret(self) -> str:
        """Our secret at the provider, from the environment or from its file.

        Raises:  ProviderUnreachable
        """
        given = os.environ.get(SECRET)
        if given is not None:
            return given
        path = self.settings.client_secret_file
        try:
            return path.read_text().strip() if path is not None else ""
        except OSError as error:
            raise ProviderUnreachable(
                f"web.oidc.client_secret_file cannot be read ({error.strerror})", remedy="Put our secret there"
            ) from error


def _object(answer: httpx.Response) -> dict[str, Any]:
    answer.raise_for_status()
    found = answer.json()
    if not isinstance(found, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 - of the text
    return found


def _wrong(what: str, error: Exception) -> ProviderUnreachable:
    kind = f"{error.response.status_code}" if isinstance(error, httpx.HTTPStatusError) else type(error).__name__
    return ProviderUnreachable(
        f"the provider of accounts: {what} ({kind})", remedy="Ask whoever runs it; users with a password can log in"
    )


def _unbelieved(error: Exception) -> NotLetIn:
    return NotLetIn(f"the provider's word cannot be believed ({type(error).__name__})", remedy="Begin it again")
