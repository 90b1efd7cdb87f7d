"""Tiny random vision-language models of transformers' own classes as saved folders, with tokenizers trained here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from extract.libraries import load, prepare
from extract.zoo.model_list import parse_line

TEXTS = [
    "USER: ASSISTANT: User: Assistant: What is the main object in this image? Answer with its name only.",
    "a cat, a dog, a snow fox, a golden retriever, a great white shark, a fox",
    "Which of these is it? A. cat B. dog C. snow fox Answer with the option's letter from the given choices directly.",
]
SPECIALS = ["<pad>", "<s>", "</s>", "<image>", "<end_of_utterance>", "<fake_token_around_image>", "<global-img>",
            "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
            "<|video_pad|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"]  # fmt: skip
TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 512}  # fmt: skip


def tokenizer(**special: str) -> Any:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner.train_from_iterator(
        TEXTS * 4, trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIALS, initial_alphabet=alphabet)
    )
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", **special
    )


LLAVA_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}USER: {% for c in m['content'] if c['type'] == 'image' %}"
    "<image>\n{% endfor %}{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }} {% endfor %}"
    "{% else %}ASSISTANT: {% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }}{{ eos_token }}{% endfor %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def llava(folder: Path, template: str | None = LLAVA_TEMPLATE) -> None:
    words = tokenizer()
    vision = tf.CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    text = tf.LlamaConfig(vocab_size=len(words), **TEXT)
    config = tf.LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    wide(tf.LlavaForConditionalGeneration(config)).save_pretrained(folder)
    images = tf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    tf.LlavaProcessor(images, words, patch_size=8, vision_feature_select_strategy="default", image_token="<image>",
                      num_additional_image_tokens=1, chat_template=template).save_pretrained(folder)  # fmt: skip


SMOL_TEMPLATE = (
    "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}{% if m['content'][0]['type'] == 'image' %}:"
    "{% else %}: {% endif %}{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}"
    "{% elif c['type'] == 'image' %}<image>{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


def idefics3(folder: Path, kind: str = "Idefics3") -> None:
    words = tokenizer()
    words.add_special_tokens({"additional_special_tokens": SPECIALS[3:7]})
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": 32, "patch_size": 8}  # fmt: skip
    text = tf.LlamaConfig(vocab_size=len(words), pad_token_id=0, **TEXT)
    configuration, model = getattr(tf, f"{kind}Config"), getattr(tf, f"{kind}ForConditionalGeneration")
    config = configuration(vision_config=vision, text_config=text, scale_factor=2, pad_token_id=0,
                               image_token_id=words.convert_tokens_to_ids("<image>"))  # fmt: skip
    wide(model(config)).save_pretrained(folder)
    images = tf.Idefics3ImageProcessor(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    tf.Idefics3Processor(images, words, image_seq_len=4, chat_template=SMOL_TEMPLATE).save_pretrained(folder)


def smolvlm(folder: Path) -> None:
    """Save the model with the processor of Idefics3, which it came with first: its own needs the package num2words."""
    idefics3(folder, "SmolVLM")


QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def qwen2_vl(folder: Path) -> None:
    words = tokenizer()
    ids = {name: words.convert_tokens_to_ids(f"<|{name}|>") for name in
           ("vision_start", "vision_end", "image_pad", "video_pad")}  # fmt: skip
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    text = {**TEXT, "vocab_size": len(words), "rope_parameters": rope}
    vision = {"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 4}
    config = tf.Qwen2VLConfig(text_config=text, vision_config=vision, image_token_id=ids["image_pad"],
                              video_token_id=ids["video_pad"], vision_start_token_id=ids["vision_start"],
                              vision_end_token_id=ids["vision_end"])  # fmt: skip
    wide(tf.Qwen2VLForConditionalGeneration(config)).save_pretrained(folder)
    sizes = {"shortest_edge": 64, "longest_edge": 4096}
    images = tf.Qwen2VLImageProcessor(patch_size=4, size=sizes)
    videos = tf.Qwen2VLVideoProcessor(patch_size=4, size=sizes)
    tf.Qwen2VLProcessor(images, words, videos, chat_template=QWEN_TEMPLATE).save_pretrained(folder)


INTERN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "<IMG_CONTEXT>\n{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def internvl(folder: Path) -> None:
    words = tokenizer(
        extra_special_tokens={"start_image_token": "<img>", "end_image_token": "</img>",
                              "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"},
    )  # fmt: skip
    vision = tf.InternVLVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                                     image_size=[32, 32], patch_size=[8, 8])  # fmt: skip
    text = tf.Qwen2Config(vocab_size=len(words), **TEXT)
    config = tf.InternVLConfig(vision_config=vision, text_config=text, image_seq_length=4, downsample_ratio=0.5,
                               image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"))  # fmt: skip
    wide(tf.InternVLForConditionalGeneration(config)).save_pretrained(folder)
    images = tf.GotOcr2ImageProcessor(size={"height": 32, "width": 32}, crop_to_patches=True, min_patches=1,
                                      max_patches=4)  # fmt: skip
    videos = tf.InternVLVideoProcessor(size={"height": 32, "width": 32})
    tf.InternVLProcessor(images, words, videos, image_seq_length=4, chat_template=INTERN_TEMPLATE).save_pretrained(
        folder
    )


def wide(module: Any) -> Any:
    """Spread the random weights, so that answers differ by more than rounding."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.3)
    return module


MODELS = {"llava": llava, "idefics3": idefics3, "qwen2_vl": qwen2_vl, "internvl": internvl, "smolvlm": smolvlm}

NAMES = ("cat", "great white shark", "golden retriever", "dog", "snow fox", "fox", "a longhorn beetle 47")
LINES = {
    "llava": "",
    "idefics3": " input_size=64 resize_mode=squash",
    "smolvlm": " input_size=64 resize_mode=squash",
    "qwen2_vl": " input_size=32 resize_mode=longest",
    "internvl": " input_size=64 resize_mode=squash",
}


def save_all(root: Path) -> Path:
    """Save every model into a folder, and the class names beside them in ``names.txt``."""
    for name, save in MODELS.items():
        torch.manual_seed(0)
        save(root / name)
    (root / "names.txt").write_text("\n".join(NAMES) + "\n")
    return root


def prepared_of(root: Path, name: str, more: str = "") -> Any:
    line = f"vlm:{name} classes=names.txt{LINES.get(name, '')} {more}"
    return prepare(parse_line(line, "models.txt:1", root)[0])


def opened(root: Path, name: str, more: str = "") -> Any:
    return load(prepared_of(root, name, more))
