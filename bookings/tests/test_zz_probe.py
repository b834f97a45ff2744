import threading, time
import pytest
from datetime import timedelta
from django.db import connection
from django.utils import timezone
from accounts.tests.factories import UserFactory
from bookings import services
from bookings.tests.factories import TUESDAY
from catalog.tests.factories import ServiceFactory
from rest_framework.test import APIClient
from rest_framework_simplejwt.tokens import AccessToken

@pytest.mark.django_db(transaction=True)
def test_probe(api):
    users = UserFactory.create_batch(40)
    service = ServiceFactory()
    def go(calls):
        b = threading.Barrier(len(calls))
        out = [None]*len(calls)
        def run(i):
            try:
                b.wait()
                t=time.perf_counter()
                try:
                    r = calls[i]()
                except Exception as e:
                    r = type(e).__name__
                out[i] = (r, time.perf_counter()-t)
            finally:
                connection.close()
        ts=[threading.Thread(target=run,args=(i,)) for i in range(len(calls))]
        for t in ts: t.start()
        for t in ts: t.join()
        return out
    for kind in ("service", "http"):
        t=time.perf_counter()
        worst=0
        clients=[api.as_(u) for u in users]
        for r in range(20):
            start=TUESDAY+timedelta(hours=r+(100 if kind=="http" else 0))
            if kind=="service":
                calls=[lambda u=u: services.create_booking(actor=u, service_id=service.pk, start_time=start, at=timezone.now()) and 201 for u in users]
            else:
                calls=[lambda c=c: c.post("/bookings", {"service_id": str(service.pk), "start_time": start.isoformat()}).status_code for c in clients]
            out=go(calls)
            worst=max(worst,max(o[1] for o in out))
            assert [o[0] for o in out].count(201)==1, out
        print(kind, time.perf_counter()-t, worst)
