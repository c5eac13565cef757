"""Which runs stand in docs/results.md, as plain data: a row more is an entry more here.

Runs of one label share a line of the table: the seeds of a method, or a model for each number of steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Run:
    """One call of main.py.

    Attributes:
        name: its folder, and what `--only` calls it.
        label: its line of the table.
        paper: where the method is from.
        config: file name in configs/, without ".py".
        values: config values that differ from that file's.
        teachers: config values that are the workdir of another run, or a folder that one makes, by its name; that run
            comes before.
        makes: folders that it makes for others once it is trained, by name, with main.py's arguments for them.
        nfe: the numbers of network evaluations that it stands for in its line; all of its samplers' if empty.
        views: its lines, where its samplers differ in more than steps: what a line adds to the label, and how the names
            of its samplers end.
        control: a line to hold the others against, and not a method; it is not drawn.
    """

    name: str
    label: str
    paper: str
    config: str
    values: Mapping[str, Any] = field(default_factory=dict)
    teachers: Mapping[str, str] = field(default_factory=dict)
    makes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    nfe: tuple[int, ...] = ()
    views: Mapping[str, str] = field(default_factory=lambda: {"": ""})
    control: bool = False

    def names(self) -> tuple[str, ...]:
        """What others can need of it."""
        return (self.name, *self.makes)


@dataclass(frozen=True)
class Table:
    """Runs that can be compared: one data set, one network, one budget, one judge.

    Attributes:
        title: its heading.
        pictures: how the names of its pictures begin.
        text: what it shows, in a sentence or two.
        same: config values that should be equal throughout; the page says which are, and who deviates.
        runs: in the order of the table's lines.
        distance: how the name of the Fréchet distance begins that it shows.
        tfds: the TensorFlow data set it needs; "" if its data are part of an installed package.
        real: the run whose training images are shown as the real ones; "" if that is any of them.
    """

    title: str
    pictures: str
    text: str
    same: tuple[str, ...]
    runs: tuple[Run, ...]
    distance: str = "fd_pixels"
    tfds: str = ""
    real: str = ""


def with_seeds(run: Run, *seeds: int) -> tuple[Run, ...]:
    """The run, whose config has seed 0, and once more with each of these seeds."""
    again = (replace(run, name=f"{run.name}_seed{s}", values={**run.values, "seed": s}) for s in seeds)
    return (run, *again)


def each_step_count(run: Run, value: str, step_counts: Sequence[int]) -> tuple[Run, ...]:
    """A model for each number of steps, which the config calls `value`; one line of the table."""
    return tuple(replace(run, name=f"{run.name}_{n}", values={**run.values, value: n}, nfe=(n,)) for n in step_counts)


SAME = ("steps", "batch_size", "patch", "width", "depth", "heads", "time_scale", "sigma_data", "judged_samples")
CM, ICT = "Song et al. 2023", "Song & Dhariwal 2023"
ECT, SCM = "Geng et al. 2024", "Lu & Song 2024"
MULTISTEP, LCM = "Heek et al. 2024", "Luo et al. 2023"


def students_of(teacher: str) -> dict[str, str]:
    """The config value through which a run gets its teacher, be it to learn from or to start from."""
    return {"teacher_run": teacher}


DISTILL = {"distill": True}
UNTRAINED = {"steps": 0}
DIGITS_TEACHER = students_of("digits_teacher")
FLOW = students_of("digits_rectified_flow")
REFLOW = {**FLOW, "pairs": "digits_pairs"}
YANG, CFM = "Yang et al. 2024", "digits_consistency_fm"
DIGITS = Table(
    title="Digits",
    pictures="results",
    text="scikit-learn's 1,797 handwritten digits in 8 x 8 pixels, class-conditional. Every run trains on all of them "
    "and is judged against all of them: the numbers say that a method learned the data, not that it generalises.",
    same=SAME,
    runs=(
        Run("digits_teacher", "diffusion teacher, DDIM", SCM, "digits_teacher"),
        Run("digits_cd_heun", "CM distillation, Heun", CM, "digits_cd", teachers=DIGITS_TEACHER),
        Run("digits_cd_euler", "CM distillation, Euler", CM, "digits_cd", {"heun": False}, DIGITS_TEACHER),
        Run("digits_ct", "CM training", CM, "digits_ct"),
        Run("digits_ict", "iCT", ICT, "digits_ict"),
        *with_seeds(Run("digits_ect", "ECT", ECT, "digits_ect", teachers=DIGITS_TEACHER), 1, 2),
        Run("digits_vct", "VCT", "Silvestri et al. 2025", "digits_vct", teachers=DIGITS_TEACHER),
        Run("digits_stable", "SCT", "Wang et al. 2024", "digits_stable", teachers=DIGITS_TEACHER),
        *with_seeds(Run("digits_sct", "sCT", SCM, "digits_scm", teachers=DIGITS_TEACHER), 1, 2),
        *with_seeds(Run("digits_scd", "sCD", SCM, "digits_scm", DISTILL, DIGITS_TEACHER), 1, 2),
        *each_step_count(
            Run("digits_mct", "Multistep CM training", MULTISTEP, "digits_multistep", {}, DIGITS_TEACHER),
            "segments",
            (1, 2, 4, 8),
        ),
        *each_step_count(
            Run("digits_mcd", "Multistep CM distillation", MULTISTEP, "digits_multistep", DISTILL, DIGITS_TEACHER),
            "segments",
            (1, 2, 4, 8),
        ),
        Run(
            *("digits_ctm", "CTM", "Kim et al. 2023", "digits_ctm"),
            teachers=DIGITS_TEACHER,
            views={", gamma 0": "gamma 0", ", gamma 1": "gamma 1"},
        ),
        Run("digits_tcd", "TCD", "Zheng et al. 2024", "digits_tcd", teachers=DIGITS_TEACHER),
        *each_step_count(
            Run("digits_pcm", "PCM", "Wang et al. 2024", "digits_pcm", {}, DIGITS_TEACHER), "phases", (1, 2, 4, 8)
        ),
        Run("digits_lcm", "LCM", LCM, "digits_lcm", teachers=DIGITS_TEACHER),
        Run(
            *("digits_lcm_second_order", "LCM, DPM-Solver++", LCM, "digits_lcm"),
            {"second_order": True},
            DIGITS_TEACHER,
        ),
        Run("digits_lcm_lora", "LCM-LoRA", LCM, "digits_lcm_lora", teachers=DIGITS_TEACHER),
        Run("digits_lcf", "LCF", LCM, "digits_lcf", teachers=students_of("digits_lcm")),
        Run("digits_ilct", "iLCT", "Dao et al. 2025", "digits_ilct"),
        Run(
            *("digits_rectified_flow", "rectified flow, Euler", "Liu et al. 2022", "digits_rectified_flow"),
            makes={"digits_pairs": ("--mode=pairs", "--n=20000")},
        ),
        Run("digits_ot_flow", "OT-CFM, Euler", "Tong et al. 2023", "digits_ot_flow"),
        Run("digits_reflow", "2-RF", "Liu et al. 2022", "digits_reflow", {}, REFLOW),
        Run("digits_reflow_improved", "2-RF++", "Lee et al. 2024", "digits_reflow", {"improved": True}, REFLOW),
        Run("digits_consistency_fm", "Consistency-FM", YANG, CFM, {}, FLOW),
        Run("digits_consistency_fm_distilled", "Consistency-FM, distilled", YANG, CFM, DISTILL, FLOW),
        Run("digits_consistency_fm_scratch", "Consistency-FM from scratch", YANG, CFM),
        Run("digits_shortcut", "Shortcut", "Frans et al. 2024", "digits_shortcut"),
        Run("digits_lsd", "LSD", "Boffi et al. 2025", "digits_lsd"),
        Run("digits_esd", "ESD", "Boffi et al. 2025", "digits_esd"),
        Run("digits_psd", "PSD", "Boffi et al. 2025", "digits_psd"),
        Run("digits_ayf", "Align Your Flow", "Sabour et al. 2025", "digits_ayf", teachers=FLOW),
        Run("digits_imm", "IMM", "Zhou et al. 2025", "digits_imm"),
        Run("digits_mean_flow", "MeanFlow", "Geng et al. 2025", "digits_mean_flow"),
        Run("digits_improved_mean_flow", "improved MeanFlow", "Geng et al. 2025", "digits_improved_mean_flow"),
        Run("digits_untrained", "untrained network", "", "digits_ect", UNTRAINED, control=True),
    ),
)

MNIST_TEACHER = students_of("mnist_teacher")
MNIST = Table(
    title="MNIST",
    pictures="results_mnist",
    text="MNIST in 28 x 28 pixels, class-conditional; trained on its 60,000 training images and judged against the "
    "first 10,000 of them, in the features of a classifier.",
    same=SAME,
    distance="fd_classifier",
    tfds="mnist",
    runs=(
        Run("mnist_teacher", "diffusion teacher, DDIM", SCM, "mnist_teacher"),
        Run("mnist_ect", "ECT", ECT, "mnist_ect", teachers=MNIST_TEACHER),
        Run("mnist_sct", "sCT", SCM, "mnist_scm", teachers=MNIST_TEACHER),
        Run("mnist_scd", "sCD", SCM, "mnist_scm", DISTILL, MNIST_TEACHER),
        Run("mnist_untrained", "untrained network", "", "mnist_ect", UNTRAINED, control=True),
    ),
)

NO_OUTLIERS = {"outlier_share": 0.0}
LATENTS = {"latents": "mnist_latents", "autoencoder_run": "mnist_autoencoder"}
LATENT_STUDENTS = {**LATENTS, "teacher_run": "mnist_latent_teacher"}
BY_GUIDANCE = {f", guidance {w}": f"guidance {w}" for w in (1, 3, 7)}


def each_guidance(run: Run) -> tuple[Run, ...]:
    """A model for each guidance scale of its teacher, with a line of its own."""
    return tuple(
        replace(
            run, name=f"{run.name}_w{w:g}", label=f"{run.label}, guidance {w:g}", values={**run.values, "guidance": w}
        )
        for w in (1.0, 3.0, 7.0)
    )


MNIST_LATENT_PCM = Run("mnist_latent_pcm", "PCM", "Wang et al. 2024", "mnist_latent_pcm", {}, LATENT_STUDENTS)
MNIST_LATENTS = Table(
    title="Latents of MNIST",
    pictures="results_latents",
    text="MNIST with a border to 32 x 32 pixels, class-conditional, in latents of 8 x 8 x 4; judged as decoded pixels "
    "against the first 10,000 training images, in the features of a classifier. A guided step of the teacher is two "
    "calls; LCM is told the scale, TCD and PCM learn one each, iLCT has none.",
    same=SAME,
    distance="fd_classifier",
    tfds="mnist",
    real="mnist_autoencoder",
    runs=(
        Run(
            *("mnist_autoencoder", "KL autoencoder", "Rombach et al. 2022", "mnist_autoencoder"),
            makes={"mnist_latents": ("--mode=encode",)},
            control=True,
        ),
        Run(
            *("mnist_latent_teacher", "diffusion teacher, DDIM", "Rombach et al. 2022", "mnist_latent_teacher"),
            teachers=LATENTS,
            views=BY_GUIDANCE,
        ),
        Run("mnist_latent_lcm", "LCM", LCM, "mnist_latent_lcm", {}, LATENT_STUDENTS, views=BY_GUIDANCE),
        *each_guidance(Run("mnist_latent_tcd", "TCD", "Zheng et al. 2024", "mnist_latent_tcd", {}, LATENT_STUDENTS)),
        *(
            model
            for run, phases in zip(each_guidance(MNIST_LATENT_PCM), ((4,), (1, 2, 4, 8), (4,)), strict=True)
            for model in each_step_count(run, "phases", phases)
        ),
        Run("mnist_latent_ilct", "iLCT", "Dao et al. 2025", "mnist_latent_ilct", {}, LATENTS),
        Run("mnist_latent_untrained", "untrained network", "", "mnist_latent_ilct", UNTRAINED, LATENTS, control=True),
    ),
)

OUTLIERS = Table(
    title="Outliers",
    pictures="results_outliers",
    text="iLCT on scikit-learn's digits, half a percent of whose numbers are replaced by five to ten standard "
    "deviations of either sign, anew each time an image is seen; judged against the images as they are. A distance is "
    "to be held against itself without outliers; the last two lines take one thing each from the first.",
    same=("steps", "batch_size", "points", "channels", "sigma_data", "outlier_factor", "judged_samples"),
    runs=tuple(
        seeded
        for name, label, values in (
            ("digits_outliers", "Cauchy", {}),
            ("digits_outliers_pseudo_huber", "pseudo-Huber", {"distance": "pseudo_huber"}),
            ("digits_outliers_l2", "l2", {"distance": "l2"}),
            ("digits_outliers_none", "Cauchy, no outliers", NO_OUTLIERS),
            (
                "digits_outliers_none_pseudo_huber",
                "pseudo-Huber, no outliers",
                {"distance": "pseudo_huber", **NO_OUTLIERS},
            ),
            ("digits_outliers_none_l2", "l2, no outliers", {"distance": "l2", **NO_OUTLIERS}),
            ("digits_outliers_no_transport", "Cauchy without optimal transport", {"transport": False}),
            ("digits_outliers_scaling_norm", "Cauchy with scaling norms", {"scaling_norm": True}),
        )
        for seeded in with_seeds(Run(name, label, "Dao et al. 2025", "digits_outliers", values), 1, 2)
    ),
)

TABLES = (DIGITS, MNIST, MNIST_LATENTS, OUTLIERS)
