"""A Whisper model of a few thousand numbers that hears the same words in every sound, in CTranslate2's form.

Its decoder's position embeddings decide what it says: the hidden state at each position lies next to the embedding of
the token that is to come. Everything else is a real Whisper: tokenizer, special tokens, time stamps, word alignment.
"""

from pathlib import Path

import torch
from ctranslate2.converters import TransformersConverter
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, WhisperConfig, WhisperForConditionalGeneration

SPECIAL = (
    "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>",
    "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
)  # fmt: skip
WIDTH, POSITIONS, STAMPS = 64, 448, 1501
PROMPT = 1
"""Tokens that are given: with so few in its vocabulary, CTranslate2 takes the model for one that knows English alone,
which is told neither language nor task."""


def made_whisper(folder: Path, says: str, seconds: float = 1.0) -> Path:
    """A folder that faster-whisper loads; the model says ``says`` from 0 to ``seconds`` of whatever it hears."""
    torch.manual_seed(0)
    tokenizer = _tokenizer(says)
    first_stamp, end = tokenizer.get_vocab_size(), _id(tokenizer, "<|endoftext|>")
    config = WhisperConfig(
        vocab_size=first_stamp + STAMPS,
        num_mel_bins=80,
        d_model=WIDTH,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=8,
        decoder_ffn_dim=8,
        max_target_positions=POSITIONS,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=_id(tokenizer, "<|startoftranscript|>"),
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config).eval()
    said = [first_stamp, *tokenizer.encode(says, add_special_tokens=False).ids, first_stamp + round(seconds / 0.02)]
    next_token = dict.fromkeys(range(POSITIONS), end)
    _teach(model, next_token | {PROMPT - 1 + i: token for i, token in enumerate(said)})
    model.generation_config = GenerationConfig(
        lang_to_id={"<|en|>": _id(tokenizer, "<|en|>")}, alignment_heads=[[0, 0], [0, 1]]
    )
    source = folder / "transformers"
    model.save_pretrained(source)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(source)
    converted = folder / "converted"
    TransformersConverter(str(source), copy_files=["tokenizer.json"]).convert(str(converted))
    return converted


def _tokenizer(text: str) -> Tokenizer:
    """Bytes, and each word of ``text`` as one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [text] * 2, trainers.BpeTrainer(vocab_size=1000, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def _id(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    assert found is not None
    return found


def _teach(model: WhisperForConditionalGeneration, next_token: dict[int, int]) -> None:
    """Make the decoder say ``next_token[p]`` after position p."""
    decoder = model.model.decoder
    with torch.no_grad():
        for layer in decoder.layers:
            for part in (layer.self_attn.out_proj, layer.encoder_attn.out_proj, layer.fc2):
                part.weight.zero_()
                part.bias.zero_()
        embeddings = 4 * torch.nn.functional.normalize(torch.randn_like(decoder.embed_tokens.weight), dim=1)
        decoder.embed_tokens.weight.copy_(embeddings)
        wanted = torch.tensor([next_token[position] for position in range(POSITIONS)])
        decoder.embed_positions.weight.copy_(20 * embeddings[wanted])
    model.tie_weights()
