"""Random tensors of a small DINOv2 under the names of three libraries."""

import numpy as np


def timm_tensors(gated=False, patch=2):
    """Random tensors under timm's names: 12 wide, 2 deep, for 3 heads, with positions of 3 x 3 patches."""
    hidden = 32 if gated else 48
    shapes: dict[str, tuple[int, ...]]
    shapes = {"cls_token": (1, 1, 12), "pos_embed": (1, 10, 12), "patch_embed.proj.weight": (12, 3, patch, patch)}
    shapes |= {"patch_embed.proj.bias": (12,), "norm.weight": (12,), "norm.bias": (12,)}
    block: dict[str, tuple[int, ...]]
    for i in range(2):
        block = {"norm1.weight": (12,), "norm1.bias": (12,), "norm2.weight": (12,), "norm2.bias": (12,)}
        block |= {"attn.qkv.weight": (36, 12), "attn.qkv.bias": (36,)}
        block |= {"attn.proj.weight": (12, 12), "attn.proj.bias": (12,), "ls1.gamma": (12,), "ls2.gamma": (12,)}
        block |= {"mlp.fc1.weight": (hidden * (1 + gated), 12), "mlp.fc1.bias": (hidden * (1 + gated),)}
        block |= {"mlp.fc2.weight": (12, hidden), "mlp.fc2.bias": (12,)}
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    generator = np.random.default_rng(0)
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def as_meta(tensors):
    """The same under Meta's names."""
    gated = tensors["blocks.0.mlp.fc1.weight"].shape[0] == 2 * tensors["blocks.0.mlp.fc2.weight"].shape[1]
    renamed = {"mlp.fc1": "mlp.w12", "mlp.fc2": "mlp.w3"} if gated else {}
    found = {"mask_token": np.zeros((1, 12), np.float32)}
    for name, tensor in tensors.items():
        for one, other in renamed.items():
            name = name.replace(one, other)
        found[name] = tensor
    return found


def as_hugging_face(tensors):
    """The same under the names of Hugging Face's files."""
    gated = tensors["blocks.0.mlp.fc1.weight"].shape[0] == 2 * tensors["blocks.0.mlp.fc2.weight"].shape[1]
    renamed = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "blocks.": "encoder.layer.",
        "attn.proj": "attention.output.dense",
        "ls1.gamma": "layer_scale1.lambda1",
        "ls2.gamma": "layer_scale2.lambda1",
    }
    renamed |= {"mlp.fc1": "mlp.weights_in", "mlp.fc2": "mlp.weights_out"} if gated else {}
    found = {"embeddings.mask_token": np.zeros((1, 12), np.float32)}
    for name, tensor in tensors.items():
        for one, other in renamed.items():
            name = name.replace(one, other)
        if name.startswith("norm."):
            name = f"layernorm.{name.removeprefix('norm.')}"
        if "attn.qkv" in name:
            for piece, part in zip(("query", "key", "value"), np.split(tensor, 3), strict=True):
                found[name.replace("attn.qkv", f"attention.attention.{piece}")] = part
        else:
            found[name] = tensor
    return found
