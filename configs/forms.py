"""What a network outputs, and a student's F of it: so any diffusion model teaches any student, and starts it exactly.

Not a run. A student of EDM's form has a network F of which `preconditioning.edm`, `consistency` and `edm_velocity` make
its functions, one of TrigFlow's form one of which `preconditioning.trigflow` does.
"""

from collections.abc import Callable
from typing import NamedTuple

from losses.types import Net
from models import translation

Translate = Callable[[Net, float], Net]
"""(network, sigma_data) -> F"""


class Form(NamedTuple):
    """What a network outputs, said by what makes each F of it.

    Attributes:
        edm: its F in EDM's form.
        trigflow: its F in TrigFlow's.
    """

    edm: Translate
    trigflow: Translate


def as_it_is(F: Net, sigma_data: float) -> Net:
    """The network itself."""
    return F


EDM = Form(edm=as_it_is, trigflow=translation.trigflow_of_edm)
TRIGFLOW = Form(edm=translation.edm_of_trigflow, trigflow=as_it_is)
UNSAID = Form(edm=as_it_is, trigflow=as_it_is)
"""Of a teacher that is not there: the student's network is what the student says."""


def of_denoisers(denoiser: Callable[[Net], Net], smooth: Callable[[Net], Net]) -> Form:
    """That of a network of which `denoiser` makes D(x, sigma), and `smooth` one that can be differentiated in sigma.

    TrigFlow's students are, and take the second.
    """

    def edm(F: Net, sigma_data: float) -> Net:
        return translation.edm_of_denoiser(denoiser(F), sigma_data)

    def trigflow(F: Net, sigma_data: float) -> Net:
        return translation.trigflow_of_edm(translation.edm_of_denoiser(smooth(F), sigma_data), sigma_data)

    return Form(edm, trigflow)
