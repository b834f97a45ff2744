"""Hostile values, for every parameter, header and field of the API.

The keys of dictionaries are names of values, which failed tests show. Values of headers are as in a
WSGI environment: each character stands for one byte.
"""

import gzip
import json
from urllib.parse import quote

MEBIBYTE = 1024 * 1024
NESTED = 100_000
ANY_ID = "01980000-0000-7000-8000-000000000000"

# Texts that are dangerous to programs that process them later (terminals, browsers, spreadsheets,
# SQL, patterns, templates, file systems), texts that are too long, and unusual numbers and ids.
TEXTS = {
    "null character": "a\0b",
    "control characters": "a\x1b[31m\x07\x7f",
    "line breaks": "a\r\nSet-Cookie: a=b",
    "line breaks of Unicode": "a\u2028b\u0085c",
    "right to left": "a\u202egpj.exe",
    "zero width": "a\u200b\u200d\ufeffb",
    "combining characters": "a" + "\u0300" * 300,
    "emoji": "\U0001f469\u200d\U0001f52c\U0001f1f5\U0001f1f9",
    "noncharacters of Unicode": "\uffff\ufdd0",
    "letters that grow": "\ufdfa\u0130\xdf" * 20,
    "digits of another script": "\uff11\u0661",
    "quotes of SQL": "' OR '1'='1' --",
    "a statement of SQL": '"; DROP TABLE accounts_user; --',
    "a backslash": "\\",
    "wildcards": "%_%_%",
    "a slow pattern": "(a+)+$" + "a" * 40,
    "an invalid pattern": "[*(?",
    "an invalid search": "a & | ! :* <-> (b",
    "a template": "{{7*7}}${7*7}{0.__class__}%s%n",
    "a script": "<script>alert(1)</script>",
    "a formula": "=HYPERLINK(1)",
    "a path": "../../../etc/passwd",
    "an encoded path": "%2e%2e%2fetc%00",
    "a URL of this host": "http://127.0.0.1:5432/",
    "blanks": " \t\u3000\xa0 ",
    "an empty text": "",
    "the word null": "null",
    "the word NaN": "NaN",
    "the word Infinity": "-Infinity",
    "a number that no float can hold": "1e400",
    "5,000 digits": "9" * 5000,
    "a number with underscores": "1_0",
    "a hexadecimal number": "0x10",
    "10,001 letters": "x" * 10_001,
    "10,001 emoji": "\U0001f488" * 10_001,
    "an id in braces": f"{{{ANY_ID}}}",
    "an id as a URN": f"urn:uuid:{ANY_ID}",
    "an id without dashes": ANY_ID.replace("-", ""),
    "an unknown id": ANY_ID,
    "an id of zeros": "00000000-0000-0000-0000-000000000000",
    "an id in letters of another script": ANY_ID.replace("0", "\uff10"),
}

# Times at the limits of Python and PostgreSQL, times that do not exist, and invalid formats.
TIMES = {
    "year 0": "0000-01-01T00:00:00Z",
    "year 1": "0001-01-01T00:00:00Z",
    "before year 1 in UTC": "0001-01-01T00:00:00+14:00",
    "year 9999": "9999-12-31T23:59:59Z",
    "after year 9999 in UTC": "9999-12-31T23:59:59-14:00",
    "a leap second": "9999-12-31T23:59:60Z",
    "year 10000": "10000-01-01T00:00:00Z",
    "a negative year": "-2999-01-01T00:00:00Z",
    "an offset of 25 hours": "2999-01-01T00:00:00+25:00",
    "an offset of 99 minutes": "2999-01-01T00:00:00+01:99",
    "an offset with seconds": "2999-01-01T00:00:00+01:00:01",
    "February 30": "2999-02-30T00:00:00Z",
    "24:00": "2999-01-01T24:00:00Z",
    "no offset": "2999-01-01T00:00:00",
    "a blank in place of a plus": "2999-01-01T00:00:00 01:00",
    "no time": "2999-01-01",
    "a week": "2999-W01-1",
    "nanoseconds": "2999-01-01T00:00:00.123456789Z",
    "a year in digits of another script": "\uff12999-01-01T00:00:00Z",
    "seconds since 1970": "32472144000",
}

# Values other than strings, as JSON texts, because Python has no value for some of them.
JSON = {
    "null": "null",
    "true": "true",
    "false": "false",
    "zero": "0",
    "minus zero": "-0.0",
    "minus one": "-1",
    "a fraction": "1.5",
    "a tiny fraction": "1e-400",
    "2**31": str(2**31),
    "2**63": str(2**63),
    "2**64": str(2**64),
    "-2**63 - 1": str(-(2**63) - 1),
    "a huge float": "1e308",
    "an empty list": "[]",
    "a list of null": "[null]",
    "a list of lists": "[[[[]]]]",
    "a list of an empty object": "[{}]",
    "a list of an empty text": '[""]',
    "a list of a null character": '["\\u0000"]',
    "a list of numbers": "[1, 2.5, -1]",
    "20,000 items": json.dumps(["x"] * 20_000),
    "an empty object": "{}",
    "nested objects": '{"a": {"b": {"c": [{}]}}}',
    "an operator": '{"$gt": ""}',
    "a prototype": '{"__proto__": {"is_admin": true}, "constructor": {}}',
    "an object with an empty name": '{"": ""}',
    "an object with a null character": '{"a\\u0000": "\\u0000"}',
    "5,000 names": json.dumps({f"k{number}": "v" for number in range(5000)}),
    "200 levels": "[" * 200 + "]" * 200,
}

# Texts that are no JSON, or that BookIt refuses as JSON. In place of a field's value, each of them
# makes the whole body invalid.
INVALID_JSON = {
    "NaN": "NaN",
    "Infinity": "-Infinity",
    "1e400": "1e400",
    "400 digits": "9" * 400,
    "a lone surrogate": '"\\ud800"',
    "a reversed pair": '"\\udc00\\ud800"',
    "100,000 levels": "[" * NESTED + "]" * NESTED,
    "a raw line break": '"a\nb"',
    "a leading zero": "01",
    "a single quote": "'a'",
    "no value": "",
}


def encoded_values(*, with_times: bool) -> dict[str, str]:
    """Return percent-encoded values, for parameters of queries and of paths.

    Texts of more than 5000 characters are left out, because gunicorn refuses long request lines.
    """
    times = TIMES if with_times else {}
    return {
        **{name: quote(value, safe="") for name, value in TEXTS.items() if len(value) <= 5000},
        "only a null character": "%00",
        "invalid UTF-8": "%FF%FE",
        "overlong UTF-8": "%C0%AF..%C0%AF",
        "a surrogate in UTF-8": "%ED%A0%80",
        "a code point beyond Unicode": "%F4%90%80%80",
        "truncated UTF-8": "%E2%82",
        "a percent sign": "%",
        "a percent sign and letters": "%zz%u0041",
        "encoded twice": "%2500%252e%252e%252f",
        "a slash": "%2F",
        "a plus": "+",
        "minus one": "-1",
        "zero": "0",
        "a fraction": "1.5",
        "2**31": str(2**31),
        "2**63": str(2**63),
        "2**64": str(2**64),
        "commas": ",,,",
        "2,000 items": "1," * 2000,
        "a minus": "-",
        "5,000 letters": "x" * 5000,
        **{name: quote(value, safe="") for name, value in times.items()},
    }


# Queries in which a parameter occurs in an unusual form.
FORMS = [
    "{0}",
    "{0}&{0}=1",
    "{0}=1&{0}=2",
    "{0}=1;{0}=2",
    "{0}[]=1",
    "{0}[$gt]=1",
    "{0}.x=1",
    "%00{0}=1",
]

HEADERS = {
    "an empty text": "",
    "a blank": " ",
    "a tab": "a\tb",
    "Latin-1": "\xe9\xff",
    "UTF-8": "\U0001f488".encode().decode("latin-1"),
    "invalid UTF-8": "\xff\xfe\xc0\xaf",
    "a control character": "a\x01\x7fb",
    "line breaks": "a\r\nSet-Cookie: a=b",
    "a null character": "a\0b",
    "8,000 letters": "x" * 8000,
    "a path": "../../etc/passwd",
    "a path on another system": "C:\\Windows",
    "a slash": "/",
    "quotes": "'\"`; --",
    "an open quote": '"',
    "a wildcard": "*",
    "commas": "," * 500,
    "semicolons": ";=" * 500,
    "a template": "${jndi:ldap://127.0.0.1/a}%s{0}",
    "a script": "<script>alert(1)</script>",
    "a huge number": "9" * 400,
    "a negative number": "-1",
    "Basic": "Basic Og==",
    "Bearer": "Bearer",
    "a token without parts": "Bearer x",
    "a token in Latin-1": "Bearer \xe9.\xe9.\xe9",
    "an unsigned token": "Bearer eyJhbGciOiJub25lIn0.eyJ1c2VyX2lkIjoiMSJ9.",
    "a token of nulls": "Bearer bnVsbA.bnVsbA.bnVsbA",
    "a key": "Bearer bk_" + "x" * 40,
    "a short key": "Bearer bk_",
}

# Raw bodies that no endpoint accepts, and the status of each response.
BODIES: dict[str, tuple[bytes, int]] = {
    "only blanks": (b"  ", 400),
    "a truncated body": (b'{"name": "A', 400),
    "two bodies": (b"{}{}", 400),
    "a form instead of JSON": (b"name=Ada&price=5", 400),
    "single quotes": (b"{'name': 'Ada'}", 400),
    "a comment": (b"{} // a comment", 400),
    "a trailing comma": (b'{"name": "Ada",}', 400),
    "deeply nested lists": (b"[" * NESTED, 400),
    "deeply nested lists that are closed": (b"[" * NESTED + b"]" * NESTED, 400),
    "deeply nested objects": (b'{"name":' * NESTED, 400),
    "deeply nested objects that are closed": (b'{"name":' * NESTED + b"1" + b"}" * NESTED, 400),
    "deeply nested lists in a field": (b'{"name":' + b"[" * NESTED + b"]" * NESTED + b"}", 400),
    "a list": (b"[]", 400),
    "a list of bodies": (b"[{}, {}]", 400),
    "a text": (b'"name"', 400),
    "an empty text": (b'""', 400),
    "a number": (b"5", 400),
    "null": (b"null", 400),
    "true": (b"true", 400),
    "NaN": (b"NaN", 400),
    "NaN in a field": (b'{"name": NaN}', 400),
    "Infinity in a field": (b'{"price": Infinity}', 400),
    "-Infinity in a field": (b'{"price": -Infinity}', 400),
    "1e400 in a field": (b'{"price": 1e400}', 400),
    "a number of 400 digits": (b'{"price": ' + b"9" * 400 + b"}", 400),
    "a lone surrogate": (b'{"name": "\\ud800"}', 400),
    "a reversed pair of surrogates": (b'{"name": "\\udc00\\ud800"}', 400),
    "a surrogate in UTF-8": (b'{"name": "\xed\xa0\x80"}', 400),
    "a lone surrogate as a name": (b'{"\\ud800": 1}', 400),
    "invalid UTF-8": (b'{"name": "\xff\xfe"}', 400),
    "overlong UTF-8": (b'{"name": "\xc0\xaf"}', 400),
    "truncated UTF-8": (b'{"name": "\xe2\x82', 400),
    "Latin-1": ('{"name": "é"}'.encode("latin-1"), 400),
    "UTF-16": ('{"name": "Ada"}'.encode("utf-16"), 400),
    "UTF-32": ('{"name": "Ada"}'.encode("utf-32"), 400),
    "a byte order mark": (b"\xef\xbb\xbf{}", 400),
    "a null character": (b"\x00", 400),
    "a raw null character in a text": (b'{"name": "A\x00da"}', 400),
    "a raw line break in a text": (b'{"name": "A\nda"}', 400),
    "a null character in a name": (b'{"na\\u0000me": "Ada"}', 400),
    "a name of 900,000 letters": (b'{"' + b"x" * 900_000 + b'": 1}', 400),
    "many unknown fields": (json.dumps({f"f{n}": 0 for n in range(60_000)}).encode(), 400),
    "a compressed body": (gzip.compress(b"{}"), 400),
    "every byte": (bytes(range(256)) * 4, 400),
    "more than a mebibyte": (b'{"name": "' + b"x" * MEBIBYTE + b'"}', 413),
    "more than a mebibyte of blanks": (b"{}" + b" " * MEBIBYTE, 413),
}

# Media types that are not JSON.
TYPES = [
    "text/plain",
    "text/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/merge-patch+json",
    "application/problem+json",
    "application/xml",
    "application/octet-stream",
    "*/*",
    "json",
    "",
]

# Media types that are JSON, that some programs take for JSON, or that are malformed.
ALMOST_JSON = [
    "APPLICATION/JSON",
    "application/json;",
    "application/json; charset=utf-16",
    "application/json; charset=utf-7",
    'application/json; charset="',
    "application/json; charset=" + "x" * 5000,
    "application/json; charset=utf-8; charset=latin-1",
    "application/json;" + " a=b;" * 1000,
    "application/json, text/html",
    "application/json\xff",
    "application/json; boundary=\x01",
    "application/*",
    "/",
    ";",
    "a/b/c",
    "x" * 5000,
]
