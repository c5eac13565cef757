import pytest

from eval.features import Features, pixels
from eval.names import LOGITS, POOL, SPATIAL, metric_name, named


def of(name, resize):
    return Features(name, pixels.extract, resize)


@pytest.mark.parametrize(
    ("measure", "features", "n", "expected"),
    [
        ("fd", pixels, 2000, "fd_pixels_2k"),
        ("fd", of(POOL, "tf1"), 50_000, "fid_tf1_50k"),
        ("fd", of(POOL, "halfpixel"), 10_000, "fid_halfpixel_10k"),
        ("fd", of(SPATIAL, "clean"), 50_000, "sfid_clean_50k"),
        ("kid", of(POOL, "tf1"), 1500, "kid_inception_tf1_1500"),
        ("fd", of("dinov2", "bicubic"), 50_000, "fd_dinov2_bicubic_50k"),
        ("cmmd", of("clip", "bicubic"), 30_000, "cmmd_clip_bicubic_30k"),
    ],
)
def test_names(measure, features, n, expected):
    assert metric_name(measure, features, n) == expected


def test_a_name_without_features_of_its_own():
    assert named("inception_score_adm", of(LOGITS, "tf1"), 50_000) == "inception_score_adm_tf1_50k"
