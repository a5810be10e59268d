"""A tokenizer trained on the miniature's own text: one token a word, a digit one too as in Llama and Qwen.

Whole words, not merges: in a world of four hundred words most merges of a BPE vocabulary would never be used, and the
rows of unused tokens in the embedding all receive one shared gradient, which Adam blows up until that one direction
holds most of the energy of every update.
"""

from collections.abc import Iterable
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from tokenizers.trainers import WordLevelTrainer

END_OF_TEXT = "<|endoftext|>"
PADDING = "<|pad|>"
UNKNOWN = "<|unknown|>"
DIGIT = Regex(r" ?\d")
"""A digit, with the space before it: as a token of its own the space would be every fifth token of a problem."""


def wrap_tokenizer(texts: Iterable[str], *, vocabulary: int) -> Any:
    """Train the tokenizer and return it as transformers knows it; the same texts give the same tokenizer."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordLevel(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(DIGIT, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special_tokens = [END_OF_TEXT, PADDING, UNKNOWN]
    trainer = WordLevelTrainer(vocab_size=vocabulary, special_tokens=special_tokens, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_OF_TEXT, pad_token=PADDING, unk_token=UNKNOWN
    )
