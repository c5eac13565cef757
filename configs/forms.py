"""What a network outputs, and a student's F of it: so any diffusion model or flow teaches any student and starts it.

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


def of_edm(edm: Translate) -> Form:
    """That of a network of which `edm` makes F in EDM's form."""
    return Form(edm, lambda F, sigma_data: translation.trigflow_of_edm(edm(F, sigma_data), sigma_data))


def of_velocity(v: Callable[[Net], Net]) -> Form:
    """That of a network of which `v` makes a velocity on the straight path."""
    return of_edm(lambda F, sigma_data: translation.edm_of_velocity(v(F), sigma_data))


def of_denoisers(denoiser: Callable[[Net], Net], smooth: Callable[[Net], Net]) -> Form:
    """That of a network of which `denoiser` makes D(x, sigma), and `smooth` one that can be differentiated in sigma.

    TrigFlow's students are, and take the second.
    """

    def form_of(denoiser: Callable[[Net], Net]) -> Form:
        return of_edm(lambda F, sigma_data: translation.edm_of_denoiser(denoiser(F), sigma_data))

    return Form(form_of(denoiser).edm, form_of(smooth).trigflow)
