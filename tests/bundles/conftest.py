"""MONAI and ignite warn of their own future while they are imported; that is done here, once, unheard."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import ignite.engine  # noqa: F401
    import monai.apps.detection.networks.retinanet_detector
    import monai.apps.detection.transforms.dictionary
    import monai.bundle
    import monai.engines
    import monai.handlers
    import monai.inferers
    import monai.transforms  # noqa: F401
    import torch

    torch.jit.script(torch.nn.Identity())
