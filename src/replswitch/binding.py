"""The names that a binding needs. The page "How to write a binding for another framework" has a complete example."""

from replswitch.request.options import RequestOptionNames, RequestOptions, Secret, request_options
from replswitch.request.policy import RequestPolicy
from replswitch.scope import Scope
from replswitch.state import Frame, Resumable, push

__all__ = [
    "Frame",
    "RequestOptionNames",
    "RequestOptions",
    "RequestPolicy",
    "Resumable",
    "Scope",
    "Secret",
    "push",
    "request_options",
]
