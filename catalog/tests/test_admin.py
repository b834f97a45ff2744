"""The pages of calendars and services in the admin site.

`bookit/adminsite/tests/test_pages.py` tests what the pages of all models have in common.
"""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import unescape

import pytest
from django.urls import reverse
from django.utils import timezone

from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory, staff
from bookings.tests.factories import TUESDAY, BookingFactory
from catalog.models import Calendar, OpeningHours, Service, TimeOff
from catalog.tests.factories import CalendarFactory, ServiceFactory, TimeOffFactory

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


@pytest.fixture
def site(client):
    client.force_login(AdminFactory())
    return client


@pytest.fixture
def calendar():
    return CalendarFactory(name="Chair")


@pytest.fixture
def save(site, calendar):
    """Return a function that saves the calendar's page and returns the next page."""

    def send(*time_off, hours=(), **fields):
        body = {
            "name": calendar.name,
            "timezone": "UTC",
            "provider": "",
            "hours-TOTAL_FORMS": len(hours),
            "hours-INITIAL_FORMS": 0,
            "time_off-TOTAL_FORMS": len(time_off),
            "time_off-INITIAL_FORMS": sum("id" in row for row in time_off),
            **fields,
        }
        for prefix, rows in (("hours", hours), ("time_off", time_off)):
            for number, row in enumerate(rows):
                row = {**row, "calendar": calendar.pk}
                body |= {f"{prefix}-{number}-{name}": value for name, value in row.items()}
        path = reverse("admin:catalog_calendar_change", args=[calendar.pk])
        return site.post(path, body, follow=True)

    return send


def period(start, end, **fields):
    """Return the fields of a row of time off, as the form sends them."""
    (start_date, start_clock), (end_date, end_clock) = start.split(), end.split()
    return {
        "start_time_0": start_date,
        "start_time_1": start_clock,
        "end_time_0": end_date,
        "end_time_1": end_clock,
        "reason": "",
        **fields,
    }


AUGUST = period("2999-08-01 00:00", "2999-09-01 00:00", reason="Summer holidays")
MORNINGS = [{"weekday": day, "opens": "09:00", "closes": "12:00"} for day in range(7)]


def warning(response):
    """Return the warning on a page, if there is one."""
    found = re.search(r'<li class="warning">(.*?)</li>', response.content.decode(), re.DOTALL)
    return found and unescape(found[1])


class TestTimeOff:
    def test_time_off_is_added_changed_and_deleted_on_the_calendars_page(self, save, calendar):
        response = save(AUGUST)
        assert "was changed successfully" in response.content.decode()
        stored = calendar.time_off.get()
        assert (stored.start_time, stored.end_time, stored.reason) == (
            datetime(2999, 8, 1, tzinfo=UTC),
            datetime(2999, 9, 1, tzinfo=UTC),
            "Summer holidays",
        )
        save({**AUGUST, "id": stored.pk, "reason": "Sabbatical"})
        assert calendar.time_off.get().reason == "Sabbatical"
        save({**AUGUST, "id": stored.pk, "DELETE": "on"})
        assert not TimeOff.objects.exists()

    def test_time_off_is_added_with_a_new_calendar(self, site):
        body = {
            "name": "Court",
            "timezone": "UTC",
            "provider": "",
            "hours-TOTAL_FORMS": 0,
            "hours-INITIAL_FORMS": 0,
            "time_off-TOTAL_FORMS": 1,
            "time_off-INITIAL_FORMS": 0,
            **{f"time_off-0-{name}": value for name, value in AUGUST.items()},
        }
        assert site.post(reverse("admin:catalog_calendar_add"), body).status_code == 302
        assert Calendar.objects.get(name="Court").time_off.count() == 1

    @pytest.mark.parametrize(
        ("row", "words"),
        [
            (period("2999-08-01 10:00", "2999-08-01 10:00"), "The end must be after the start."),
            (period("2999-08-01 10:00", "2999-08-01 09:00"), "The end must be after the start."),
            (period("2999-08-01 10:00", "2999-08-32 09:00"), "Enter a valid date."),
            (period("2979-08-01 10:00", "2999-08-01 10:00"), "Time off can last at most 10 years."),
        ],
    )
    def test_invalid_time_off_is_refused_with_a_clear_message(self, save, row, words):
        page = save(row).content.decode()
        assert words in page
        assert "onstraint" not in page  # no message about a constraint of the database
        assert not TimeOff.objects.exists()

    def test_past_time_off_is_not_shown_and_not_deleted(self, site, save, calendar):
        now = timezone.now()
        for weeks in (-2, 2):
            TimeOffFactory(
                calendar=calendar,
                start_time=now + timedelta(weeks=weeks),
                reason=f"In {weeks} weeks",
            )
        page = site.get(reverse("admin:catalog_calendar_change", args=[calendar.pk]))
        assert "In 2 weeks" in page.content.decode()
        assert "In -2 weeks" not in page.content.decode()
        save(name="Court")
        calendar.refresh_from_db()
        assert (calendar.name, calendar.time_off.count()) == ("Court", 2)


def named(booking, hour):
    """Return the HTML with which a warning names a booking on 1 January at this full hour."""
    path = reverse("admin:bookings_booking_change", args=[booking.pk])
    words = [f"Tue 1 Jan 2999, {hour}:00", booking.service.title, booking.user.name]
    return f'<a href="{path}">{" · ".join(words)}</a>'


class TestAffectedBookings:
    @pytest.fixture
    def service(self, calendar):
        return ServiceFactory(calendar=calendar, capacity=50)

    def test_a_change_of_hours_names_bookings_that_are_now_outside(self, save, service):
        outside = [BookingFactory(service=service, start_time=TUESDAY + n * HOUR) for n in (3, 2)]
        BookingFactory(service=service)
        assert warning(save(hours=MORNINGS)) == (
            "2 upcoming bookings are now outside the open times: "
            f"{named(outside[1], 12)}; {named(outside[0], 13)}."
        )

    def test_new_time_off_names_the_bookings_in_it(self, save, service):
        booking = BookingFactory(service=service)
        # `keep` closes the calendar although there are bookings.
        off = period("2999-01-01 00:00", "2999-01-02 00:00", keep="on")
        assert warning(save(off)) == (
            f"1 upcoming booking is now outside the open times: {named(booking, 10)}."
        )

    def test_a_change_of_zone_names_bookings_by_their_new_local_time(self, save, calendar, service):
        booking = BookingFactory(service=service, start_time=TUESDAY + HOUR)
        save(hours=MORNINGS)
        ids = calendar.hours.order_by("weekday").values_list("pk", flat=True)
        same = [{**span, "id": pk} for span, pk in zip(MORNINGS, ids, strict=True)]
        body = {"timezone": "Europe/Paris", "hours-INITIAL_FORMS": 7}
        assert warning(save(hours=same, **body)) == (
            f"1 upcoming booking is now outside the open times: {named(booking, 12)}."
        )

    def test_only_the_first_five_bookings_are_named(self, save, service):
        for seat in range(1, 13):
            BookingFactory(service=service, seat=seat, start_time=TUESDAY + 5 * HOUR)
        text = warning(save(hours=MORNINGS))
        assert text.startswith("12 upcoming bookings are now outside")
        assert "The first ones are:" in text
        assert text.count("Tue 1 Jan 2999, 15:00") == 5

    def test_there_is_no_warning_if_no_booking_is_outside(self, save, service):
        BookingFactory(service=service)
        assert warning(save(hours=MORNINGS)) is None

    def test_there_is_no_warning_if_the_open_times_are_unchanged(self, save, calendar, service):
        BookingFactory(service=service, start_time=TUESDAY + 5 * HOUR)
        OpeningHours.objects.create(calendar=calendar, weekday=0, opens=0, closes=60)
        stored = calendar.hours.get()
        same = {"id": stored.pk, "weekday": 0, "opens": "00:00", "closes": "01:00"}
        body = {"name": "Court", "hours-INITIAL_FORMS": 1}
        assert warning(save(hours=[same], **body)) is None
        calendar.refresh_from_db()
        assert calendar.name == "Court"


class TestPrice:
    """The page of a service shows a price with the decimals of its currency."""

    @pytest.fixture
    def service(self):
        return ServiceFactory(title="Cut")

    @pytest.fixture
    def url(self, service):
        return reverse("admin:catalog_service_change", args=[service.pk])

    @pytest.fixture
    def save_service(self, site, url):
        """Return a function that saves the page as a browser does, with some fields changed."""

        def send(**fields):
            form = site.get(url).context["adminform"].form
            body = {name: form[name].value() for name in form.fields}
            body = {
                name: value
                for name, value in body.items()
                if value is not None and value is not False
            }
            return site.post(url, {**body, **fields}, follow=True).content.decode()

        return send

    def test_a_new_service_has_the_default_currency(self, site, settings):
        settings.DEFAULT_CURRENCY = "JPY"
        shown = site.get(reverse("admin:catalog_service_add")).content.decode()
        assert '<option value="JPY" selected>JPY: Yen</option>' in shown

    def test_only_currencies_in_use_can_be_chosen(self, site, url):
        shown = site.get(url).content.decode()
        assert '<option value="USD" selected>USD: US Dollar</option>' in shown
        assert '<option value="EUR">EUR: Euro</option>' in shown
        for code in ("XXX", "XAU", "CHE", "DEM"):
            assert f'<option value="{code}"' not in shown

    @pytest.mark.parametrize(
        ("price", "currency", "shown"),
        [("1500", "JPY", "1500"), ("1.5", "KWD", "1.500"), ("18.5", "EUR", "18.50")],
    )
    def test_a_price_is_shown_with_the_decimals_of_its_currency(
        self, site, url, save_service, service, price, currency, shown
    ):
        save_service(price=price, currency=currency)
        service.refresh_from_db()
        assert (service.price, service.currency) == (Decimal(price), currency)
        assert f'name="price" value="{shown}"' in site.get(url).content.decode()
        booking = BookingFactory(service=service)
        for path in (
            reverse("admin:catalog_service_changelist"),
            reverse("admin:bookings_booking_changelist"),
            reverse("admin:bookings_booking_change", args=[booking.pk]),
        ):
            assert f"{shown} {currency}" in site.get(path).content.decode()

    @pytest.mark.parametrize(
        ("price", "currency", "message"),
        [
            ("1.50", "JPY", "A price in JPY has no decimals."),
            ("1.005", "EUR", "A price in EUR has at most 2 decimals."),
            ("1", "XXX", "Select a valid choice. XXX is not one of the available choices."),
        ],
    )
    def test_an_invalid_price_is_refused_with_a_clear_message(
        self, save_service, service, price, currency, message
    ):
        assert message in save_service(price=price, currency=currency)
        service.refresh_from_db()
        assert (service.price, service.currency) == (25, "USD")

    def test_an_obsolete_currency_is_not_silently_replaced(self, site, url, save_service):
        Service.objects.update(currency="HRK")
        shown = site.get(url).content.decode()
        assert '<option value="HRK" selected>HRK: no longer in use</option>' in shown
        assert "ISO 4217 code of a currency in use" in save_service()


def test_browsers_without_scripts_choose_the_provider_from_a_list(client):
    """The list contains accounts only for people who may see accounts."""
    provider = ProviderFactory(email="ada@example.com")
    path = reverse("admin:catalog_calendar_change", args=[CalendarFactory().pk])
    client.force_login(AdminFactory())
    assert (
        f'<option value="{provider.pk}">ada@example.com</option>'
        in client.get(path).content.decode()
    )
    client.force_login(staff(["catalog.change_calendar", "catalog.view_calendar"]))
    assert "ada@example.com" not in client.get(path).content.decode()


@pytest.mark.parametrize("words", ["new york", "New_York", "america/new york"])
def test_a_calendar_is_found_by_its_time_zone(site, words):
    CalendarFactory(name="Chair", timezone="America/New_York")
    CalendarFactory(name="Court", timezone="Europe/Lisbon")
    page = site.get(reverse("admin:catalog_calendar_changelist"), {"q": words})
    assert [each.name for each in page.context["cl"].result_list] == ["Chair"]


@pytest.mark.parametrize(
    "words", ["colour", "Cut/Colour", "node.js lessons", "men\u2019s", "e-bike", "60\u201390"]
)
def test_words_next_to_punctuation_are_found_in_descriptions(site, words):
    ServiceFactory(
        title="All",
        description="Cut/Colour, lessons in node.js, men\u2019s trim, e-bike, 60\u201390 minutes",
    )
    ServiceFactory(title="Other", description="Nothing")
    page = site.get(reverse("admin:catalog_service_changelist"), {"q": words})
    assert [each.title for each in page.context["cl"].result_list] == ["All"]


def test_only_an_active_provider_or_admin_can_be_chosen_as_provider(save, calendar):
    former = ProviderFactory(is_active=False)
    for other in (UserFactory(), staff(["catalog.change_calendar"]), former):
        page = save(provider=other.pk)
        assert page.context["adminform"].form.errors == {
            "provider": ["There is no active provider with this id."]
        }
    for other in (ProviderFactory(), AdminFactory()):
        save(provider=other.pk)
        calendar.refresh_from_db()
        assert calendar.provider == other
    # A calendar can keep a provider who is no longer active.
    Calendar.objects.update(provider=former)
    save(provider=former.pk, name="Chair 2")
    calendar.refresh_from_db()
    assert (calendar.name, calendar.provider) == ("Chair 2", former)


def test_no_calendar_is_preselected_for_a_new_service(site):
    """Without an empty option, a browser would select the first option of a list."""
    CalendarFactory(name="Chair")
    text = site.get(reverse("admin:catalog_service_add")).content.decode()
    found = re.search(r'<select name="calendar".*?</select>', text, re.DOTALL)[0]
    assert re.findall("<option[^>]*>([^<]*)", found) == ["", "Chair"]


class TestWords:
    def test_the_form_of_a_service_has_plain_labels_and_units(self, site):
        ServiceFactory(category="Barber")
        text = unescape(site.get(reverse("admin:catalog_service_add")).content.decode())
        for words in ("Duration:", "Kept free before:", "Book at least:", "How many people can"):
            assert words in text
        assert text.count('<span class="unit">minutes</span>') == 4
        assert text.count('<span class="unit">minutes before the start</span>') == 2
        assert '<option value="Barber"></option>' in text
        assert "duration minutes" not in text.lower()

    def test_the_record_section_shows_the_id_the_zone_of_its_times_and_the_rating(self, site):
        def section(path):
            """Return the HTML of the section. Elsewhere on the page, links contain the id."""
            text = site.get(path).content.decode()
            found = re.search(r'<fieldset class="[^"]*\brecord".*?</fieldset>', text, re.DOTALL)
            return found and found[0]

        calendar = CalendarFactory(timezone="Asia/Tokyo")
        service = ServiceFactory(calendar=calendar)
        for row in (calendar, service):
            path = reverse(f"admin:catalog_{row._meta.model_name}_change", args=[row.pk])
            assert "(Asia/Tokyo)" in section(path)
            assert str(row.pk) in section(path)
        assert "no reviews" in section(path)
        Service.objects.update(rating_sum=14, rating_count=3)
        assert "4.7" in section(path)
        # The average is 4.4524. `rating_average`, which is 4.45, could be rounded to 4.4.
        Service.objects.update(rating_sum=187, rating_count=42)
        assert "4.5" in section(path)
        Service.objects.update(rating_sum=17, rating_count=4)
        assert "4.3" in section(path)
        assert section(reverse("admin:catalog_calendar_add")) is None

    @pytest.mark.parametrize("value", ["\0", "9" * 400, "-1", "x", "1e5", "NaN"])
    @pytest.mark.parametrize(
        "field",
        [
            *("duration_minutes", "step_minutes", "capacity", "buffer_before_minutes"),
            *("min_notice_minutes", "max_advance_days", "cancellation_notice_minutes"),
            *("price", "currency", "mode", "calendar"),
        ],
    )
    def test_nonsense_is_refused_at_its_field_and_stays_in_the_form(self, site, field, value):
        if field == "price" and value == "1e5":
            return  # 1e5 is a valid price.
        sent = {
            "title": "Cut",
            "calendar": CalendarFactory().pk,
            "price": "25",
            "currency": "USD",
            "duration_minutes": "60",
            "capacity": "1",
            "mode": "open",
            "buffer_before_minutes": "0",
            "buffer_after_minutes": "0",
            "min_notice_minutes": "0",
            "cancellation_notice_minutes": "0",
            field: value,
        }
        response = site.post(reverse("admin:catalog_service_add"), sent)
        assert response.status_code == 200
        form = response.context["adminform"].form
        assert field in form.errors
        assert form[field].value() == value
        assert not Service.objects.exists()

    @pytest.mark.parametrize(
        ("field", "value"),
        [("title", "x" * 201), ("title", "a\0b"), ("description", "x" * 10_001), ("title", " ")],
    )
    def test_invalid_texts_are_refused_at_their_field(self, site, field, value):
        response = site.post(reverse("admin:catalog_service_add"), {field: value})
        assert field in response.context["adminform"].form.errors


def linked(client, row, to):
    """Check that the page of `row` names `to`, and return whether it links to the page of `to`."""
    page = client.get(reverse(f"admin:catalog_{row._meta.model_name}_change", args=[row.pk]))
    text = page.content.decode()
    assert str(to) in text
    name = f"admin:{to._meta.app_label}_{to._meta.model_name}_change"
    return reverse(name, args=[to.pk]) in text


@pytest.mark.parametrize("action", ["view", "change"])
def test_a_service_links_to_its_calendar_only_for_staff_who_may_see_it(client, calendar, action):
    service = ServiceFactory(calendar=calendar)
    BookingFactory(service=service)  # The calendar of a service with bookings is read-only.
    own = f"catalog.{action}_service"
    client.force_login(staff([own, "catalog.view_calendar"]))
    assert linked(client, service, calendar)
    client.force_login(staff([own]))
    assert not linked(client, service, calendar)


def test_a_calendar_links_to_its_provider_only_for_staff_who_may_see_accounts(client):
    calendar = CalendarFactory(provider=ProviderFactory())
    client.force_login(staff(["catalog.view_calendar", "accounts.view_user"]))
    assert linked(client, calendar, calendar.provider)
    client.force_login(staff(["catalog.view_calendar"]))
    assert not linked(client, calendar, calendar.provider)


@pytest.mark.parametrize("permission", ["add_calendar", "change_calendar"])
def test_staff_who_may_not_see_accounts_get_no_email_address_from_the_id_of_an_account(
    client, calendar, permission
):
    customer = UserFactory(email="zelda@example.com")
    client.force_login(staff([f"catalog.{permission}"]))
    page = reverse("admin:catalog_calendar_add")
    if permission == "change_calendar":
        page = reverse("admin:catalog_calendar_change", args=[calendar.pk])
    body = {"name": "", "timezone": "UTC", "provider": customer.pk}
    for prefix in ("hours", "time_off"):
        body |= {f"{prefix}-TOTAL_FORMS": 0, f"{prefix}-INITIAL_FORMS": 0}
    for response in (client.get(page, {"provider": customer.pk}), client.post(page, body)):
        assert response.status_code == 200
        assert "zelda" not in response.content.decode()
        assert 'name="provider"' not in response.content.decode()
    # Everything else can still be saved.
    assert client.post(page, {**body, "name": "Room"}).status_code == 302
    assert Calendar.objects.get(name="Room").provider is None


def test_staff_who_may_not_see_accounts_keep_the_provider_of_a_calendar(client):
    calendar = CalendarFactory(provider=ProviderFactory(email="rui@example.com"))
    client.force_login(staff(["catalog.change_calendar"]))
    page = reverse("admin:catalog_calendar_change", args=[calendar.pk])
    assert "rui@example.com" in client.get(page).content.decode()
    body = {"name": "Room", "timezone": "UTC", "provider": ""}
    for prefix in ("hours", "time_off"):
        body |= {f"{prefix}-TOTAL_FORMS": 0, f"{prefix}-INITIAL_FORMS": 0}
    assert client.post(page, body).status_code == 302
    stored = Calendar.objects.get(name="Room")
    assert stored.provider == calendar.provider


def found_by(client, field, term):
    """Return what a field finds. The field is named like "service.calendar"."""
    model, name = field.split(".")
    app = "bookings" if model == "slot" else "catalog"
    query = {"app_label": app, "model_name": model, "field_name": name, "term": term}
    response = client.get(reverse("admin:autocomplete"), query)
    assert response.status_code == 200
    return [each["text"] for each in response.json()["results"]]


def test_staff_who_create_services_and_slots_find_calendars_and_services_by_name(client):
    provider = ProviderFactory(name="Rui Costa", email="rui@example.com")
    ServiceFactory(title="Yoga", calendar=CalendarFactory(name="Studio", provider=provider))
    client.force_login(staff(["catalog.add_service", "bookings.add_slot"]))
    assert found_by(client, "slot.service", "yog") == ["Yoga"]
    assert found_by(client, "service.calendar", "stu") == ["Studio"]
    # Only staff who may see calendars know the email addresses of providers.
    assert found_by(client, "service.calendar", "rui@") == []
    client.force_login(staff(["catalog.view_calendar"]))
    assert found_by(client, "service.calendar", "rui@") == ["Studio"]


def test_staff_who_may_not_see_accounts_cannot_search_them(client):
    client.force_login(staff(["catalog.change_calendar"]))
    query = {"app_label": "catalog", "model_name": "calendar", "field_name": "provider"}
    assert client.get(reverse("admin:autocomplete"), query).status_code == 403
    client.force_login(staff(["catalog.change_calendar", "accounts.view_user"]))
    assert client.get(reverse("admin:autocomplete"), query).status_code == 200
