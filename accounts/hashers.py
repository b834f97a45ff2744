"""Password hashing."""

from django.contrib.auth.hashers import Argon2PasswordHasher


class Argon2idPasswordHasher(Argon2PasswordHasher):
    """Argon2id with the second of the parameter sets that OWASP recommends.

    A hash takes 19 MiB, two passes and one lane. So four threads of a web worker that hash at the
    same time need only 76 MiB. Django's default of 100 MiB and eight lanes is meant for a machine
    that has no other work.

    Source: OWASP Password Storage Cheat Sheet (m=19456 KiB, t=2, p=1).
    """

    time_cost = 2
    memory_cost = 19456
    parallelism = 1
