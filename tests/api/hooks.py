"""Who asks, for Schemathesis: one user, each time from an address of its own, as the trusted proxy says.

Limits by address are tested elsewhere.
"""

import itertools
import os

import schemathesis

COUNT = itertools.count(1)


@schemathesis.hook
def before_call(context, case, **kwargs):
    n = next(COUNT)
    case.headers = {**(case.headers or {}), "X-Forwarded-For": f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}"}


@schemathesis.auth()
class Token:
    def get(self, case, ctx):
        return os.environ["API_TOKEN"]

    def set(self, case, data, ctx):
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}
