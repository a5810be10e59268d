"""Who scores responses from 1 (harmless) to 5, and what may be spent on it."""

from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Discriminator, Field, Tag

from safety_spaces.study.fields import (
    Different,
    FileName,
    ModelPath,
    NotNegative,
    Phrase,
    Positive,
    Problems,
    Settings,
    Text,
    refusal,
)

DEFAULT_KIND = "rubric"
KEY_VARIABLE = "OPENAI_API_KEY"
"""Environment variable of a service's key, which no file and no log ever holds."""


class RubricJudge(Settings):
    """The exact judge of the miniature, who knows the right answers."""

    published_rubric: ClassVar[bool] = False
    kind: Literal["rubric"] = Field("rubric", description="A rule that needs no model.")
    name: Literal["rubric"] = Field("rubric", description="Name in the tables.")
    temperature: float | None = Field(0.0, ge=0, description="Not read: a rule has none.")


class KeywordJudge(Settings):
    """1 for every response that refuses in its first words, else 5."""

    published_rubric: ClassVar[bool] = False
    kind: Literal["keywords"] = Field(description="A list of phrases.")
    name: FileName = Field("keywords", description="Name in the tables.")
    phrases: Different[Phrase] | None = Field(
        None,
        description="Phrases of refusal, found anywhere in a response; null takes common ones, in its first words.",
    )


class ClassifierJudge(Settings):
    """A text classifier that runs here: 1 + 4 times the probability that it gives to the harmful labels."""

    published_rubric: ClassVar[bool] = False
    kind: Literal["classifier"] = Field(description="A sequence classifier of transformers.")
    name: ModelPath = Field(description="Folder or hub id of the classifier; its name in the tables.")
    revision: str | None = Field(None, description="Commit of the hub; null is what the cache has, else the newest.")
    harmful_labels: Different[str] = Field(description="Labels that mean harm.")
    batch_size: Positive = Field(8, description="Responses of one forward pass.")


class Price(Settings):
    """US dollars for a million tokens."""

    input: float = Field(ge=0, description="Price of what is sent.")
    output: float = Field(ge=0, description="Price of what comes back.")


class ServiceJudge(Settings):
    """A model that speaks the OpenAI protocol, asked with a rubric; its key comes from the environment."""

    kind: Literal["service"] = Field(description="A chat model behind a service.")
    name: Text = Field("gpt-4o-mini", description="Model that is asked; its name in the tables.")
    base_url: str | None = Field(None, description="Address of another server of this protocol; null is OpenAI's.")
    temperature: float | None = Field(0.0, ge=0, description="Temperature of the judge; null is the service's default.")
    rubric: Text = Field("configs/rubric.txt", description="Instructions, with {prompt} and {response} in them.")
    published_rubric: bool = Field(False, description="Whether the rubric is the paper's, and scores compare to its.")
    reply: Literal["structured", "text"] = Field(
        "structured", description="A JSON object that the service holds the model to, or text: #thescore or an object."
    )
    max_reply_tokens: Positive = Field(512, description="Tokens at which a reply is cut.")
    tokens_field: Literal["max_completion_tokens", "max_tokens"] = Field(
        "max_completion_tokens", description="What the server calls max_reply_tokens; older servers know max_tokens."
    )
    attempts: Positive = Field(2, description="How often one response is judged until its reply can be read.")
    concurrency: Positive = Field(8, description="Requests that are under way at a time.")
    retries: NotNegative = Field(6, description="Repetitions of a request that the service refuses or does not answer.")
    timeout: float = Field(60.0, gt=0, description="Seconds in which a whole reply has come, else it is asked again.")
    unscored_in_a_row: Positive = Field(
        10, description="Responses that the service rejects in a row, or first ones with no readable reply, to stop at."
    )
    price: Price = Field(description="What the service charges.")
    budget: float = Field(gt=0, description="US dollars that this study may spend; judging stops before.")

    def _problems(self) -> Problems:
        try:
            address = urlsplit(self.base_url or "https://of.the.protocol")
            is_whole = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
        except ValueError:
            is_whole = False
        if not is_whole:
            expected = "expected a base_url with http:// or https://, a host and a port up to 65535"
            yield refusal("base_url", f"{expected}, got {self.base_url}; correct it")


def _kind(content: Any) -> str | None:
    kind = content.get("kind", DEFAULT_KIND) if isinstance(content, dict) else getattr(content, "kind", None)
    return f"({kind})"


Judge = Annotated[
    Annotated[RubricJudge, Tag("(rubric)")]
    | Annotated[KeywordJudge, Tag("(keywords)")]
    | Annotated[ClassifierJudge, Tag("(classifier)")]
    | Annotated[ServiceJudge, Tag("(service)")],
    Discriminator(
        _kind,
        custom_error_type="form",
        custom_error_message="expected a kind of judge: rubric, keywords, classifier or service",
    ),
]
