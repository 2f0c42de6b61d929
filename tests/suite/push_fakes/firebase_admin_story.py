"""firebase-admin sends what it can say, and is refused in every way that it tells apart."""

import json
import sys
import warnings

import firebase_admin
from firebase_admin import credentials, exceptions, messaging

warnings.simplefilter("ignore", DeprecationWarning)
setting = json.loads(sys.argv[1])
app = firebase_admin.initialize_app(
    credentials.Certificate(setting["account"]), {"httpTimeout": 20}
)


def message(token, **more):
    return messaging.Message(
        token=token,
        data={"conversation": "c", "seq": "7"},
        android=messaging.AndroidConfig(
            priority="high",
            ttl=2419200,
            collapse_key="talk",
            notification=messaging.AndroidNotification(
                body_loc_key="HOMING_NEW_MESSAGE", tag="talk", notification_count=3
            ),
        ),
        apns=messaging.APNSConfig(
            headers={"apns-priority": "10"},
            payload=messaging.APNSPayload(aps=messaging.Aps(badge=3, mutable_content=True)),
        ),
        webpush=messaging.WebpushConfig(headers={"TTL": "60"}),
        **more,
    )


def refused(kind, token, **more):
    try:
        messaging.send(message(token, **more))
    except exceptions.FirebaseError as error:
        assert type(error) is kind, f"{token}: {error!r}"
        return error
    raise AssertionError(f"{token} is accepted")


name = messaging.send(message("device-1"))
assert name.startswith("projects/homing-fake/messages/"), name
several = messaging.send_each([message("device-2"), message("UNREGISTERED")])
assert [one.success for one in several.responses] == [True, False], several.responses
assert type(several.responses[1].exception) is messaging.UnregisteredError

refused(messaging.SenderIdMismatchError, "SENDER_ID_MISMATCH")
refused(messaging.QuotaExceededError, "QUOTA_EXCEEDED")
refused(messaging.ThirdPartyAuthError, "THIRD_PARTY_AUTH_ERROR")
refused(exceptions.InvalidArgumentError, "not a token")
too_large = messaging.Notification(body="x" * 4096)
refused(exceptions.InvalidArgumentError, "device-9", notification=too_large)

# An installation instead of a token: what Google wants new apps to use.
messaging.send(messaging.Message(fid="device-3", data={"seq": "8"}))
assert messaging.send(message("device-4")) != name
# These the library itself tries again before it gives up, after as long as it is told.
several = messaging.send_each([message("INTERNAL"), message("UNAVAILABLE")])
kinds = [type(one.exception) for one in several.responses]
assert kinds == [exceptions.InternalError, exceptions.UnavailableError], several.responses
