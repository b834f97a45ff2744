"""Lets something happen while a new password is hashed, which takes long in production."""

from django.contrib.auth import base_user

from accounts import services as accounts


def while_a_password_is_hashed(monkeypatch, act):
    """Call `act` just before the next new password of a user is hashed."""
    places = [(base_user, "make_password"), (accounts, "make_password")]
    originals = [getattr(*place) for place in places]

    def interrupted(original):
        def act_and_hash(*args, **options):
            for place, each in zip(places, originals, strict=True):
                monkeypatch.setattr(*place, each)
            act()
            return original(*args, **options)

        return act_and_hash

    for place, original in zip(places, originals, strict=True):
        monkeypatch.setattr(*place, interrupted(original))
