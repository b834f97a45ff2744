"""Password hashing."""

from django.contrib.auth.hashers import Argon2PasswordHasher


class Argon2idPasswordHasher(Argon2PasswordHasher):
    """Argon2id with the second of OWASP's recommended parameter sets, one lane.

    19 MiB and two passes cost a web worker of two threads at a time less than 40 MiB; Django's own
    100 MiB and eight lanes are sized for a machine that does nothing else.

    Source: OWASP Password Storage Cheat Sheet (m=19456 KiB, t=2, p=1).
    """

    time_cost = 2
    memory_cost = 19456
    parallelism = 1
