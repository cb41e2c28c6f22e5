"""Who may do what: one answer for both front doors, from the Authorization header alone."""

from __future__ import annotations

import time
from typing import Final

from tvixstore.access.credentials import token_in
from tvixstore.access.rights import NONE, Denied, Right, Rights
from tvixstore.access.tokens import Grant, Tokens
from tvixstore.log import Logger
from tvixstore.policy.seldom import Seldom

_log = Logger("tvixstore.access")

# Headers that were right, so that the next request with one of them costs a look into a dict.
_REMEMBERED: Final = 1024

_HOW: Final = (
    "send a token as `Authorization: Bearer TOKEN`, or as the password of any user "
    "(for Nix: in its netrc-file)"
)
_WRONG: Final = Denied(f"these credentials are not known here: {_HOW}", anonymous=True)
_EXPIRED: Final = Denied("the token has expired: ask for another", anonymous=True)
_WITHHELD: Final[dict[Right, Denied]] = {
    "read": Denied("nothing may be read here"),
    "write": Denied(
        "nothing may be put here: writes are off; writes = true in [daemon] turns them on"
    ),
    "admin": Denied(
        "other machines can connect to this daemon, so nobody may administer it: have it listen on "
        "loopback or unix sockets alone, or give it a tokens_file"
    ),
}
_MISSING: Final[dict[Right, Denied]] = {
    "read": Denied(f"reading takes credentials here: {_HOW}", anonymous=True),
    "write": Denied(f"putting takes credentials here: {_HOW}", anonymous=True),
    "admin": Denied(f"administering takes credentials here: {_HOW}", anonymous=True),
}
_INSUFFICIENT: Final[dict[Right, Denied]] = {
    right: Denied(f"the token lacks the right `{right}`") for right in _MISSING
}


class Access:
    """`anonymous` is what everybody may, `withheld` what nobody may, whatever token he has.

    Without `tokens` nobody's credentials mean anything. With them, unknown ones are refused even
    where none are needed: who sends them is to be told that they are of no use.
    """

    def __init__(
        self, anonymous: Rights, tokens: Tokens | None = None, withheld: Rights = NONE
    ) -> None:
        self._anonymous = anonymous - withheld
        self._withheld = withheld
        self._tokens = tokens
        # Found by its text, and not by a digest: a dict compares what has the same hash, and that
        # is keyed as well. Only what is right gets in, so that nobody else can push it out.
        self._remembered: dict[str, Grant] = {}
        # Somebody tries, or has an old token.
        self._unknown = Seldom(_log, "access.unknown_credentials")

    @classmethod
    def of(cls, *rights: Right) -> Access:
        """Everybody may do that, and nothing else."""
        return cls(frozenset(rights))

    def change(self, anonymous: Rights, withheld: Rights) -> None:
        """From now on that is what everybody may, and what nobody may."""
        self._anonymous = anonymous - withheld
        self._withheld = withheld
        self._remembered.clear()

    def renew(self, tokens: Tokens) -> None:
        """From now on `tokens` count, and no others."""
        self._tokens = tokens
        self._remembered.clear()

    def check(self, right: Right | None, authorization: str | None) -> Denied | None:
        """Why whoever sends `authorization` may not do what takes `right`; `None` if he may."""
        if right is None:
            return None
        rights = self.rights(authorization)
        if isinstance(rights, Denied):
            return rights
        if right in rights:
            return None
        if right in self._withheld or self._tokens is None:
            return _WITHHELD[right]
        return (_MISSING if authorization is None else _INSUFFICIENT)[right]

    def rights(self, authorization: str | None) -> Rights | Denied:
        """What whoever sends `authorization` may do."""
        if authorization is None or self._tokens is None:
            return self._anonymous
        grant = self._remembered.get(authorization)
        if grant is None:
            if (grant := self._find(self._tokens, authorization)) is None:
                self._unknown.note()
                return _WRONG
            while len(self._remembered) >= _REMEMBERED:
                del self._remembered[next(iter(self._remembered))]
            self._remembered[authorization] = grant
        if grant.expires is not None and grant.expires <= time.time():
            return _EXPIRED
        return grant.rights

    def _find(self, tokens: Tokens, authorization: str) -> Grant | None:
        token = token_in(authorization)
        found = None if token is None else tokens.find(token)
        if found is None:
            return None
        return Grant((found.rights - self._withheld) | self._anonymous, found.expires)
