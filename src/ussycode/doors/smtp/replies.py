"""Every answer of the SMTP door but the library's own: code, class, sentence. None quotes what a client said."""
from __future__ import annotations

from ussycode.doors.smtp.limits import MAX_BYTES, MAX_LINE, MAX_PER_ADDRESS, MAX_RECIPIENTS
from ussycode.inbox.model import Outcome

OK = "250 2.1.0 OK"
OF_RECIPIENT = {
    Outcome.TAKEN: "250 2.1.5 OK",
    Outcome.NO_MAILBOX: "550 5.1.1 no machine here takes mail for this address",
    Outcome.NOT_RUNNING: "450 4.2.1 the machine is not running, try again later",
    Outcome.TOO_MANY: "451 4.7.1 too many mails for this machine within an hour, try again later",
}
OF_MAIL = {
    **OF_RECIPIENT,
    Outcome.TAKEN: "250 2.0.0 the mail lies in the machine",
    Outcome.FULL: "552 5.2.2 the mailbox is full, and takes no more mail",
    Outcome.NOT_KEPT: "451 4.2.0 the machine did not take the mail, try again later",
}
GO_AHEAD = "354 the mail, and a line with nothing but a dot after it"
BAD_NAME = "501 5.5.4 say a host name or an address in brackets"
NO_RECIPIENT = "503 5.5.1 say who gets it first: RCPT TO:<address>"
NO_ARGUMENT = "501 5.5.4 DATA takes no argument"
BARE_LINE_END = "550 5.6.0 a carriage return or line feed stands alone in it; lines end with both"
LINE_TOO_LONG = f"550 5.6.0 a line of it is longer than {MAX_LINE} bytes"
TOO_BIG = f"552 5.3.4 it is larger than {MAX_BYTES} bytes"
NO_ROOM = "452 4.3.1 too many mails are on their way in, try again later"
TOO_MANY_RECIPIENTS = f"452 4.5.3 no more than {MAX_RECIPIENTS} recipients, send the others theirs in a mail of its own"
TOO_MANY_MAILS = "451 4.7.1 too many mails from your address within an hour, try again later"
TOO_MANY_CONNECTIONS = f"421 4.7.0 too many connections; one address may have {MAX_PER_ADDRESS}"
TIMED_OUT = "421 4.4.2 it took too long, goodbye"
SECURE_ALREADY = "503 5.5.1 it is encrypted already"
NO_VERIFYING = "252 2.1.5 nobody is told who takes mail here"
BROKEN = "451 4.3.0 something broke here, try again later"
