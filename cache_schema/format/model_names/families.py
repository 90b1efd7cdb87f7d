"""The family of an architecture, from its name: cnn, vit, hybrid or mlp."""

from __future__ import annotations

import re
from functools import cache

from cache_schema.format.records import UNKNOWN

# The longest prefix that fits decides: mobilenetv4_hybrid before mobilenet. Hybrid: convolution and attention
# both carry weight; a convolutional stem of several layers counts, since it changes what the study asks
# about.
_PREFIXES: dict[str, str] = {
    "cnn": """
        RN convnext coca_convnext
        cs3 csp darknet densenet dla dm_nfnet dpn eca efficientnet ese_vovnet
        fasternet fbnet focalnet gc_efficientnet gcresne gernet ghostnet hardcorenas hgnet hrnet inception
        lcnet legacy_ mambaout mixnet mnasnet mobilenet mobileone nasnet nf_ nfnet pnasnet poolformer rdnet
        regnet repghostnet repvgg repvit res2ne resne rexnet sedarknet selecsls semnasnet senet seresne
        skresne spnasnet starnet tf_ tinynet tresnet vgg vovnet wide_resnet xception convformer convmixer
        test_byobnet test_convnext test_efficientnet test_mambaout test_nfnet test_resnet
    """,
    "hybrid": """
        ViTamin MobileCLIP-S MobileCLIP-B MobileCLIP2-S MobileCLIP2-B
        bat_resnext botnet caformer coat coatnet coatnext cpubone csatv2 eca_botnext eca_halonext edgenext
        efficientformer efficientvim efficientvit fastvit gcvit halo haloregnet iformer lambda_resnet
        lamhalobotnet levit lowformer maxvit maxxvit mobilenetv4_hybrid mobilenetv5 mobilevit nextvit sebotnet
        sehalonet shvit swiftformer test_coatnet test_maxvit tiny_vit visformer vit_base_mci vitamin
    """,
    "mlp": "gmixer gmlp mixer resmlp",
    "vit": """
        ViT- EVA coca_ViT coca_base coca_roberta-ViT mt5- roberta-ViT xlm-roberta- nllb-clip PE-Core
        MobileCLIP2-L aimv2 beit cait convit crossvit davit deepseek_vit deit eva flexivit gemma4_vit hiera
        mvitv2 naflexvit nest pit_ pvt qwen3_vit sam2_hiera samvit swin test_vit tnt twins vit_ volo xcit
    """,
}
_FAMILY_OF = {prefix: family for family, text in _PREFIXES.items() for prefix in text.split()}
# A ResNet body below a transformer: vit_small_r26_s32_224, vit_base_resnet50d_224.
_RESNET_VIT = re.compile(r"vit_\w*(_r\d*_s\d+|resn\w+)")


@cache
def family_of(architecture: str) -> str:
    """Return ``cnn``, ``vit``, ``hybrid`` or ``mlp``; ``unknown`` for all others (an LSTM, say).

    Parameters
    ----------
    architecture
        Name of a timm or open_clip architecture, without tag.
    """
    if _RESNET_VIT.match(architecture):
        return "hybrid"
    fitting = [prefix for prefix in _FAMILY_OF if architecture.startswith(prefix)]
    return _FAMILY_OF[max(fitting, key=len)] if fitting else UNKNOWN
