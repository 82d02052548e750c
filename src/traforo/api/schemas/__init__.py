"""Every request and answer of the API as a pydantic model, with examples: the source of openapi.json.

Requests are validated by these models. Answers are described by them and built elsewhere; tests hold the routes to
it. A name that a request model does not know is an error, so that nothing a caller asks for is silently ignored.
"""

from traforo.api.schemas.execs import CodeCreate as CodeCreate
from traforo.api.schemas.execs import Exec as Exec
from traforo.api.schemas.execs import ExecCreate as ExecCreate
from traforo.api.schemas.execs import ExecPage as ExecPage
from traforo.api.schemas.execs import ExecQuery as ExecQuery
from traforo.api.schemas.execs import ExecStarted as ExecStarted
from traforo.api.schemas.execs import ExecSummary as ExecSummary
from traforo.api.schemas.execs import Frame as Frame
from traforo.api.schemas.execs import FramePage as FramePage
from traforo.api.schemas.execs import FrameQuery as FrameQuery
from traforo.api.schemas.execs import SignalCreate as SignalCreate
from traforo.api.schemas.fields import MAX_CODE_BYTES as MAX_CODE_BYTES
from traforo.api.schemas.fields import MAX_COMMAND_BYTES as MAX_COMMAND_BYTES
from traforo.api.schemas.fields import MAX_ENV_BYTES as MAX_ENV_BYTES
from traforo.api.schemas.fields import MAX_PAGE as MAX_PAGE
from traforo.api.schemas.fields import MAX_PATH_BYTES as MAX_PATH_BYTES
from traforo.api.schemas.fields import MAX_TIMEOUT_MS as MAX_TIMEOUT_MS
from traforo.api.schemas.fields import AnswerModel as AnswerModel
from traforo.api.schemas.fields import QueryModel as QueryModel
from traforo.api.schemas.fields import RequestModel as RequestModel
from traforo.api.schemas.fields import check_size as check_size
from traforo.api.schemas.files import DirectoryCreate as DirectoryCreate
from traforo.api.schemas.files import DirectoryMade as DirectoryMade
from traforo.api.schemas.files import FileContent as FileContent
from traforo.api.schemas.files import FileDeleteQuery as FileDeleteQuery
from traforo.api.schemas.files import FileEntry as FileEntry
from traforo.api.schemas.files import FileListing as FileListing
from traforo.api.schemas.files import FileListQuery as FileListQuery
from traforo.api.schemas.files import FileQuery as FileQuery
from traforo.api.schemas.files import FileReadQuery as FileReadQuery
from traforo.api.schemas.files import FileStat as FileStat
from traforo.api.schemas.files import FileWrite as FileWrite
from traforo.api.schemas.files import FileWritten as FileWritten
from traforo.api.schemas.processes import Health as Health
from traforo.api.schemas.processes import Problem as Problem
from traforo.api.schemas.processes import ProblemDetails as ProblemDetails
from traforo.api.schemas.sandboxes import CreatedSandbox as CreatedSandbox
from traforo.api.schemas.sandboxes import CreateQuery as CreateQuery
from traforo.api.schemas.sandboxes import Lease as Lease
from traforo.api.schemas.sandboxes import LeaseQuery as LeaseQuery
from traforo.api.schemas.sandboxes import Sandbox as Sandbox
from traforo.api.schemas.sandboxes import SandboxCreate as SandboxCreate
from traforo.api.schemas.sandboxes import SandboxPage as SandboxPage
from traforo.api.schemas.sandboxes import SandboxQuery as SandboxQuery
from traforo.api.schemas.sandboxes import Timings as Timings
from traforo.api.schemas.workers import Registered as Registered
from traforo.api.schemas.workers import Registration as Registration
