"""The domain of email addresses that belong to nobody."""

# RFC 2606 reserves this top-level domain, so an address in it never receives email. Accounts of
# customers without an email address, and of users who have deleted their account, have such an
# address.
NOWHERE = ".invalid"
