"""`letheon review RUN`: serve the page on this machine until Ctrl-C, then bring the verdicts up to date."""

from __future__ import annotations

import secrets
import signal
import socket
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from letheon.console import Console
from letheon.dialogues import read_dialogues
from letheon.errors import InputError, MissingExtraError
from letheon.records import Audit, PersonDecision, Results, Verdict, write_text
from letheon.review.audit import draw, fingerprint, in_words, read_audit
from letheon.review.decisions import append_decisions, standing
from letheon.review.learn import Learner
from letheon.review.session import Session
from letheon.review.settle import decisions_of, settle_unless_busy
from letheon.run import Run
from letheon.screen.thresholds import in_force
from letheon.split import check_fit

LOOPBACK = "127.0.0.1"


def open_session(run: Run, console: Console, audit_size: int | None = None) -> Session:
    """What there is to review in a run folder.

    Args:
        run: The run.
        console: Where warnings go.
        audit_size: Begin an audit of so many turns, or go on with the one of this size.

    Raises:
        InputError: It has not been screened, is an erasure request, or has verdicts that do not fit the log.
    """
    recipe = run.recipe
    if recipe.data.subject is not None:
        raise InputError(
            f"{run.folder}: an erasure request (data.subject) forgets all of its subject, so that there is nothing "
            "to review; give a run without one"
        )
    verdicts = run.verdicts()
    check_fit(run.dialogues, verdicts)
    decisions = decisions_of(run, console.warn)
    normal_below, forget_above = in_force(recipe.screen, Results.load(run.results_file).screening)
    return Session(
        run.dialogues,
        verdicts,
        decisions,
        lambda decision: append_decisions(run.decisions_file, [decision]),
        normal_below=normal_below,
        forget_above=forget_above,
        audit=audit_of(run, verdicts, decisions, console, audit_size),
        save_audit=lambda audit: save_audit(run.audit_file, audit),
    )


def audit_of(
    run: Run, verdicts: Sequence[Verdict], decisions: Sequence[PersonDecision], console: Console, size: int | None
) -> Audit | None:
    """The audit to go on with: the run's, if it is of this screening, or a new one if another size is asked for."""
    judged = [verdict.judged or verdict for verdict in verdicts]
    audit = read_audit(run.audit_file)
    if audit is not None and audit.screening != fingerprint(judged):
        if size is not None:
            console.say("audit: the screening has changed since the last sample; a new one is drawn")
        audit = None
    if size is None or (audit is not None and len(audit.sample) in (size, audit.population)):
        return audit
    if audit is not None:
        console.say(f"audit: a new sample takes the place of the one of {len(audit.sample)}")
    audit = draw(judged, standing(decisions), size, run.recipe.seed)
    if len(audit.sample) < size:
        console.say(f"audit: there are only {len(audit.sample)} normal verdicts to draw; all of them are taken")
    return audit


def save_audit(path: Path, audit: Audit) -> None:
    """Write `audit.json` atomically."""
    write_text(path, audit.model_dump_json(by_alias=True, indent=2) + "\n")


def learner_of(run: Run, session: Session, console: Console) -> Learner:
    """What learns from the decisions: on top of the embedding judge's examples, where the recipe has such."""
    path = run.recipe.screen.examples if "embedding" in run.recipe.screen.judges else None
    return Learner(session, read_dialogues(path) if path else [], run.recipe.seed, console.warn)


def review(
    run: Run,
    console: Console,
    *,
    port: int | None = None,
    open_browser: bool = True,
    blur: bool = False,
    audit_size: int | None = None,
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        run: A screened run.
        console: Where the URL and the summary go.
        port: On 127.0.0.1; a free one by default.
        open_browser: Show the page in the user's browser.
        blur: Start with blurred texts.
        audit_size: Label a random sample of so many normal verdicts.

    Raises:
        InputError: There is nothing to review, or the port is taken.
        MissingExtraError: starlette or uvicorn is not installed.
    """
    try:
        import uvicorn

        from letheon.review.app import make_app
    except ImportError:
        raise MissingExtraError("the review page", "review") from None

    session = open_session(run, console, audit_size)
    learner = learner_of(run, session, console)
    listener = listen(port)
    host, token = f"{LOOPBACK}:{listener.getsockname()[1]}", secrets.token_urlsafe(32)
    settings = {
        "run": str(run.folder),
        "normal_below": session.normal_below,
        "forget_above": session.forget_above,
        "blur": blur,
    }
    hosts = (host, host.replace(LOOPBACK, "localhost"))
    app = make_app(session, learner, token=token, hosts=hosts, settings=settings)
    # The log would hold the token in every line.
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, ws="none", http="h11")
    config.timeout_graceful_shutdown = 1
    counts = session.counts()
    doubtful = counts["band"] - counts["band_decided"]
    console.say(
        f"in doubt: {doubtful} turns; {counts['waiting'] - doubtful} others are not decided by a person either"
    )
    console.say(f"review: http://{host}/{token}/")
    console.say("Every decision is saved as it is made. Ctrl-C ends the review")
    if open_browser:
        show(f"http://{host}/{token}/", console)
    # Whoever ends it, by Ctrl-C or by kill, finds the verdicts up to date.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        learner.stop()
        settled = settle_unless_busy(run, console)
    counts, audit = session.counts(), session.audit
    console.say(
        f"decided: {counts['decided']} turns ({counts['forget']} forget, {counts['normal']} normal); "
        f"still in review: {counts['band'] - counts['band_decided']}"
    )
    if audit is not None:
        console.say(in_words(audit))
    if settled:
        console.say(f"{run.verdicts_file} is up to date; 'letheon run {run.folder}' redoes what follows from it")
    if learner.busy:
        console.say("ending, as soon as the judge has left off learning …")
    # A thread that is within torch when Python ends can take the process down with it.
    learner.wait()


def listen(port: int | None) -> socket.socket:
    """A socket on the loopback address.

    Raises:
        InputError: The port is taken or not allowed.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port or 0))
    except (OSError, OverflowError) as error:
        listener.close()
        why = error.strerror if isinstance(error, OSError) else "not a port"
        raise InputError(f"--port {port}: {why}; give another from 1024 to 65535, or leave it out") from None
    listener.listen()
    return listener


def show(url: str, console: Console) -> None:
    """Open the page in the user's browser, if there is one that can show it."""
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        browser = None
    # A browser without windows would take over the terminal, and runs no script.
    if browser is None or type(browser) is webbrowser.GenericBrowser or not browser.open(url):
        console.say("No browser was found: open the URL yourself, or 'ssh -L' the port from another machine")
