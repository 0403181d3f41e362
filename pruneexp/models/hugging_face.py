"""Any Hugging Face encoder with a classification or regression head: a name on the hub, or a local folder.

bert-base-uncased: Devlin et al. 2019, "BERT" (arXiv:1810.04805).
"""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pruneexp.datasets.base import DataInfo
from pruneexp.models.base import Model
from pruneexp.models.hub import failure, load_tokenizer, local_or_name, local_tokenizer, quiet_hub
from pruneexp.models.parts import encoder_of, parts

logger = logging.getLogger("pruneexp")

ATTENTIONS = ("sdpa", "eager")


class HuggingFace(Model):
    """An encoder of transformers under `AutoModelForSequenceClassification`, pretrained."""

    kind = "text"

    def __init__(
        self,
        *,
        name_or_path: str,
        tokenizer: str | None,
        dropout: float | None,
        attention: str | None,
        trust_remote_code: bool,
        checkpoint: str | None,
        freeze_embeddings: bool = False,  # the configs of older runs, which `pruneexp.load` reads, have no such option
    ) -> None:
        """Checks the arguments; downloads nothing.

        name_or_path: a repository on the hub, or a folder with config.json and weights. tokenizer: the same for the
        tokenizer, null for `name_or_path`. dropout: in place of every dropout rate of the model's config, in [0, 1).
        attention: `sdpa` (fused), `eager` (plain matrix products) or null for transformers' choice. freeze_embeddings:
        the embeddings of tokens, positions and segments, and their normalisation, are not trained.
        trust_remote_code: whether Python files in the repository may run.

        Raises:
            ValueError: no such folder, dropout or attention.
        """
        super().__init__(checkpoint=checkpoint)
        check_dropout(dropout)
        if attention is not None and attention not in ATTENTIONS:
            raise ValueError(f"model.attention={attention}: choose one of {', '.join(ATTENTIONS)}, or null")
        self.path = local_or_name("model.name_or_path", name_or_path, ["config.json"])
        self.tokenizer_path = self.path if tokenizer is None else local_tokenizer(tokenizer)
        self.dropout, self.attention, self.trust = dropout, attention, trust_remote_code
        self.freeze_embeddings = freeze_embeddings
        if trust_remote_code:
            logger.warning(
                "model.trust_remote_code=true: Python files that come with %s run with your rights", name_or_path
            )

    def network(self, info: DataInfo, *, pretrained: bool = True) -> nn.Module:
        """A new network; what the pretrained weights lack is initialised, which the log says."""
        network = self._network(info, pretrained=pretrained)
        if self.freeze_embeddings:
            _embeddings(network).requires_grad_(False)
        return network

    def _network(self, info: DataInfo, *, pretrained: bool) -> nn.Module:
        from transformers import AutoModelForSequenceClassification as Classifier

        config = self._config()
        config.num_labels = info.num_outputs
        config.problem_type = "regression" if info.regression else "single_label_classification"
        if self.dropout is not None:
            override_dropout_(config, self.dropout)
        options = {"attn_implementation": self.attention, "trust_remote_code": self.trust, "dtype": torch.float32}
        try:
            with quiet_hub(online=pretrained and not Path(self.path).is_dir()):
                if not pretrained:
                    return Classifier.from_config(config, **options).train()
                options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
                network, loaded = Classifier.from_pretrained(self.path, config=config, **options)
        except Exception as error:  # of transformers, the hub's client, safetensors or the model's own code
            raise ValueError(failure("model.name_or_path", self.path, error)) from error
        self._report(network, loaded)
        return network.train()

    def new_tokenizer(self, texts: list[str]) -> Any:
        """The pretrained tokenizer; the texts do not change it.

        Raises:
            ValueError: it is not there, or has more tokens than the model.
        """
        config = self._config()
        key = "model.name_or_path" if self.tokenizer_path == self.path else "model.tokenizer"
        tokenizer = load_tokenizer(key, self.tokenizer_path, config.vocab_size, trust_remote_code=self.trust)
        positions = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
        tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
        return tokenizer

    def save_processor(self, folder: Path) -> None:
        """Writes the tokenizer, where one was made, and config.json: enough for `network(info, pretrained=False)`."""
        super().save_processor(folder)
        self._config().save_pretrained(folder)

    def _config(self) -> Any:
        """The pretrained model's configuration."""
        from transformers import AutoConfig

        try:
            with quiet_hub(online=not Path(self.path).is_dir()):
                return AutoConfig.from_pretrained(self.path, trust_remote_code=self.trust)
        except Exception as error:  # as above
            raise ValueError(failure("model.name_or_path", self.path, error)) from error

    def _report(self, network: nn.Module, loaded: dict[str, Any]) -> None:
        """Logs which parameters are new. Raises ValueError if the encoder's own are."""
        mismatched = sorted(entry[0] for entry in loaded["mismatched_keys"])
        new, head = sorted(loaded["missing_keys"]) + mismatched, parts(network)["head"]
        foreign = [key for key in new if key not in head and key in dict(network.named_parameters())]
        if foreign:
            encoder = type(encoder_of(network)).__name__
            raise ValueError(
                f"model.name_or_path={self.path}: {len(foreign)} weights of the {encoder} are not there or have "
                f"another shape, {foreign[0]} first; give a folder whose weights belong to its config.json"
            )
        if new:
            layers = sorted({key.rpartition(".")[0] for key in new})
            logger.info("%s: newly initialised: %s", self.path, ", ".join(layers))


def _embeddings(network: nn.Module) -> nn.Module:
    """The embeddings of a network. Raises ValueError if they are no module of their own."""
    found = getattr(encoder_of(network), "embeddings", None)
    if found is None:
        name = type(network).__name__
        raise ValueError(f"model.freeze_embeddings=true: {name} has no module of that name; set it to false")
    return found


def check_dropout(dropout: float | None) -> None:
    """Raises ValueError unless the rate is null or in [0, 1)."""
    if dropout is not None and not 0 <= dropout < 1:
        raise ValueError(f"model.dropout={dropout}: must be in [0, 1)")


def override_dropout_(config: Any, dropout: float) -> None:
    """Sets every dropout rate in a transformers configuration; those that are None follow another one and stay so."""
    for key, value in config.to_dict().items():
        if "dropout" in key and isinstance(value, (int, float)) and not isinstance(value, bool):
            setattr(config, key, dropout)
