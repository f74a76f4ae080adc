"""Commands that advise: what a VM can begin as, and what stands in the way."""
from __future__ import annotations

from dataclasses import dataclass

from ussycode.access.actions import Action
from ussycode.base.errors import printable
from ussycode.cmdline.render import Style, table
from ussycode.cmdline.spec import ACCOUNT, command
from ussycode.ports import Ctx
from ussycode.vms import checkup
from ussycode.vms.documents import CheckDocument, DoctorDocument, ProjectsDocument
from ussycode.vms.projects import PROJECTS, Project


@dataclass(frozen=True)
class Nothing:
    """No arguments."""


@dataclass(frozen=True)
class ProjectsView:
    """Projects that new VMs can begin as."""

    found: tuple[Project, ...]

    def text(self, style: Style) -> str:
        """A table and how it is used."""
        shown = table(["PROJECT", "WHAT IT IS"], [[p.name, p.summary] for p in self.found], style)
        return f"{shown}\nnew --template {self.found[0].name} makes a VM that begins as one"

    def document(self) -> ProjectsDocument:
        """The document of `projects`."""
        return {"projects": [{"name": p.name, "summary": p.summary, "port": p.port} for p in self.found]}


@command("projects", needs=Action.VM_LIST, on=ACCOUNT, reads_only=True, examples=("projects",))
async def projects(ctx: Ctx, a: Nothing) -> ProjectsView:
    """List what a new VM can begin as, with new --template."""
    return ProjectsView(tuple(PROJECTS.values()))


@dataclass(frozen=True)
class FindingsView:
    """What was looked at."""

    found: tuple[checkup.Finding, ...]

    def text(self, style: Style) -> str:
        """A line for each, and below it what to do."""
        return "\n".join(line for one in self.found for line in self._lines(one, style))

    def _lines(self, one: checkup.Finding, style: Style) -> list[str]:
        mark = style.paint("ok  ", "green") if one.ok else style.paint("FAIL", "red")
        said = [f"{mark} {one.what}: {printable(one.found)}"]
        return [*said, f"     -> {one.todo}"] if one.todo else said

    def document(self) -> DoctorDocument:
        """The document of `doctor`."""
        return {"ok": all(f.ok for f in self.found), "checks": [self._check(f) for f in self.found]}

    def _check(self, one: checkup.Finding) -> CheckDocument:
        made: CheckDocument = {"what": one.what, "ok": one.ok, "found": one.found}
        if one.todo:
            made["todo"] = one.todo
        return made


@command("doctor", needs=Action.ACCOUNT_READ, on=ACCOUNT, reads_only=True, examples=("doctor",))
async def doctor(ctx: Ctx, a: Nothing) -> FindingsView:
    """Look for what stands in your way: VMs that failed, room that runs out."""
    return FindingsView(await checkup.examine(ctx.app, ctx.caller, ctx.permit))


ALL = (doctor, projects)
