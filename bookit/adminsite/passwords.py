"""The page of the admin site on which users change their own password."""

from typing import Any

from django.contrib.admin.forms import AdminPasswordChangeForm
from django.contrib.auth import get_user_model, update_session_auth_hash
from django.contrib.auth.views import PasswordChangeView
from django.db import transaction
from django.http import HttpResponse, HttpResponseRedirect


class OwnPasswordView(PasswordChangeView):
    """Django's own view, but it never overwrites what somebody else has changed meanwhile.

    Django's view saves all columns of the user, so it could activate an account again.
    """

    form_class = AdminPasswordChangeForm

    def form_valid(self, form: Any) -> HttpResponse:
        """Store the new password, unless the old one has changed, and keep this session."""
        unchanged = get_user_model().objects.filter(pk=form.user.pk, password=form.user.password)
        user = form.save(commit=False)  # The slow hashing comes before the transaction.
        with transaction.atomic():
            if unchanged.update(password=user.password):
                # In the same transaction, because a trigger ends all sessions of the user.
                update_session_auth_hash(self.request, user)
                return HttpResponseRedirect(self.get_success_url())
        form.add_error("old_password", form.error_messages["password_incorrect"])
        return self.form_invalid(form)
