"""The contents of all files of the town, and the rules that concern more than one of them."""

from collections.abc import Iterator
from dataclasses import dataclass

from accounts.models import User
from bookit.tools.demo.entries import (
    BusinessEntry,
    CalendarEntry,
    Entry,
    PeopleEntry,
    SettingsEntry,
    TownError,
    email_of,
)

#: Role, email and password.
Account = tuple[str, str, str]


@dataclass(frozen=True)
class Town:
    """The demo town.

    Raises:
        TownError: entries contradict each other.
    """

    settings: SettingsEntry
    people: PeopleEntry
    businesses: tuple[BusinessEntry, ...]

    def __post_init__(self) -> None:
        """Check the rules that concern more than one file."""
        self._check_emails()
        self._check_shown_accounts()
        self._check_regulars()

    @property
    def calendars(self) -> list[CalendarEntry]:
        """The calendars of all businesses."""
        return [calendar for business in self.businesses for calendar in business.calendars]

    @property
    def passwords(self) -> dict[str, str]:
        """The password of each role."""
        passwords = self.settings.passwords
        return {
            User.Role.ADMIN: passwords.admin,
            User.Role.USER: passwords.user,
            User.Role.PROVIDER: passwords.provider,
        }

    @property
    def accounts(self) -> list[Account]:
        """The accounts to show to the person who starts the demo."""
        roles = {email: role for role, email, _ in self._users()}
        shown = [(roles[email], email) for email in self.settings.shown_accounts]
        return [(str(role), email, self.passwords[role]) for role, email in shown]

    @property
    def emails(self) -> list[str]:
        """The email addresses of all users."""
        return [email for _, email, _ in self._users()]

    def _users(self) -> Iterator[tuple[User.Role, str, Entry]]:
        """Yield the role and email address of each user, and the entry that contains the user."""
        people = self.people
        yield User.Role.ADMIN, people.admin.email, people.admin
        yield User.Role.USER, people.main_customer.email, people.main_customer
        for business in self.businesses:
            yield User.Role.PROVIDER, business.email, business
        for name in people.women + people.men:
            yield User.Role.USER, email_of(name), people

    def _check_emails(self) -> None:
        found: set[str] = set()
        for _, email, entry in self._users():
            if email in found:
                raise TownError(entry.source, f"More than one user has the address {email}.")
            found.add(email)

    def _check_shown_accounts(self) -> None:
        for email in self.settings.shown_accounts:
            if email not in self.emails:
                raise TownError(
                    self.settings.source, f"shown_accounts: Nobody has the address {email}."
                )

    def _check_regulars(self) -> None:
        main_customer = self.people.main_customer
        names = {calendar.name for calendar in self.calendars}
        for name in main_customer.regular_at:
            if name not in names:
                raise TownError(
                    main_customer.source, f'regular_at: No calendar has the name "{name}".'
                )
        men, everybody = len(self.people.men), len(self.people.women + self.people.men)
        for calendar in self.calendars:
            most = men if calendar.men_only else everybody
            if not 0 <= calendar.regulars <= most:
                raise TownError(calendar.source, f"regulars must be a number from 0 to {most}.")
