"""Gemini generateContent: what an agent may ask. Pure.

The model stands in the path, so it is no field here. What runs at the provider (search, maps, code, URL context, file
search, remote MCP) has an egress or a price of its own, and what it would fetch or keep (file URIs, cached content) is
an egress that no rule of the stage has allowed: all of it is refused.
"""

from __future__ import annotations

from policies.canonical import Json
from policies.plan import Model
from proxy.llm.formats.base import IMAGE_TOKENS, Draft, Object, known, malformed, max_output, only, word

_PASSED = frozenset({"contents", "tools", "toolConfig", "safetySettings", "systemInstruction"})
_DROPPED = frozenset({"store", "serviceTier"})
_CONFIG = frozenset(
    {"stopSequences", "temperature", "topP", "topK", "seed", "presencePenalty", "frequencyPenalty", "responseMimeType",
     "responseSchema", "responseJsonSchema", "responseLogprobs", "logprobs", "thinkingConfig", "responseModalities",
     "mediaResolution", "candidateCount", "maxOutputTokens"}
)  # fmt: skip
_CONTENT = frozenset({"role", "parts"})
_ROLES = ("user", "model", "function", "tool")
_PART = frozenset({"text", "thought", "thoughtSignature", "inlineData", "functionCall", "functionResponse"})
_DECLARATION = frozenset(
    {"name", "description", "parameters", "parametersJsonSchema", "response", "responseJsonSchema"}
)
_CALLING = frozenset({"mode", "allowedFunctionNames"})
_THINKING = frozenset({"includeThoughts", "thinkingBudget", "thinkingLevel"})
_INSIDE = {
    "inlineData": frozenset({"mimeType", "data", "displayName"}),
    "functionCall": frozenset({"id", "name", "args"}),
    "functionResponse": frozenset({"id", "name", "response"}),
}


def read(body: Object, model: Model) -> Draft:
    """Return the checked request; raise `Refused` (P021, P028)."""
    known(body, _PASSED | _DROPPED | {"generationConfig"}, "field")
    only(body, "store", False)
    only(body, "serviceTier", "standard")
    extra = _check_contents(body.get("contents"))
    if body.get("systemInstruction") is not None:
        extra += _check_content(body["systemInstruction"])
    _check_tools(body.get("tools"))
    _check_choice(body.get("toolConfig"))
    config = _object(body.get("generationConfig"), "generationConfig", _CONFIG)
    only(config, "candidateCount", 1)
    only(config, "responseModalities", ["TEXT"], [])  # images and speech have a rate of their own
    ceiling = max_output(config, model, "maxOutputTokens")
    sent: Object = {key: body[key] for key in sorted(_PASSED & body.keys())}
    fitted: Object = {key: config[key] for key in sorted(config) if key != "candidateCount"}
    hidden = _fit_thinking(fitted, ceiling)
    sent["generationConfig"] = {**fitted, "maxOutputTokens": ceiling}
    return Draft(sent=sent, stream=False, max_output=ceiling, extra_tokens=extra, hidden=hidden)


def read_count(body: Object, model: Model) -> Draft:
    """Return the checked question for a count, which costs no token; raise `Refused` (P021)."""
    del model
    known(body, frozenset({"contents"}), "field")
    _check_contents(body.get("contents"))
    return Draft(sent={"contents": body["contents"]}, stream=False, max_output=0)


def _object(value: Json, what: str, allowed: frozenset[str]) -> Object:
    """Return an object of known fields, empty where it is absent."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        malformed(f"{what} is not an object")
    known(value, allowed, f"{what} field")
    return value


def _check_contents(contents: Json) -> int:
    """Check every content; return the tokens of the images in them."""
    if not isinstance(contents, list) or not contents:
        malformed("contents must be a list that is not empty")
    return sum(_check_content(content) for content in contents)


def _check_content(content: Json) -> int:
    if not isinstance(content, dict) or not word(content.get("role", "user"), _ROLES):
        malformed("a content has no known role")
    known(content, _CONTENT, "content field")
    parts = content.get("parts")
    if not isinstance(parts, list):
        malformed("parts is not a list")
    return sum(_check_part(part) for part in parts)


def _check_part(part: Json) -> int:
    """Check one part; return the tokens of an image, else 0."""
    if not isinstance(part, dict):
        malformed("a part is not an object")
    known(part, _PART, "part field")  # fileData: the provider would fetch it; code and search results run there
    for key, fields in _INSIDE.items():
        if key in part and (not isinstance(part[key], dict) or not _object(part[key], key, fields)):
            malformed(f"{key} is empty or not an object")
    match part.get("inlineData"):
        case None:
            return 0
        case {"mimeType": str() as kind, "data": str()} if kind.startswith("image/"):
            return IMAGE_TOKENS
        case _:
            # the tokens of sound, film and PDF are not bounded by their bytes, so they could not be reserved
            return malformed("inlineData must be an image")


def _check_tools(tools: Json) -> None:
    if tools is None:
        return
    if not isinstance(tools, list):
        malformed("tools is not a list")
    for tool in tools:
        if not isinstance(tool, dict):
            malformed("a tool is not an object")
        known(tool, frozenset({"functionDeclarations"}), "tool that runs at the provider")
        declared = tool.get("functionDeclarations")
        if not isinstance(declared, list) or not all(isinstance(one, dict) for one in declared):
            malformed("functionDeclarations is not a list of objects")
        for one in declared:
            known(one if isinstance(one, dict) else {}, _DECLARATION, "function field")


def _check_choice(config: Json) -> None:
    calling = _object(config, "toolConfig", frozenset({"functionCallingConfig"})).get("functionCallingConfig")
    _object(calling, "functionCallingConfig", _CALLING)


def _fit_thinking(config: Object, ceiling: int) -> bool:
    """Fit the thinking budget under the output ceiling; return whether there is thinking that may not be shown."""
    if config.get("thinkingConfig") is None:
        return True  # models think unless they are told not to
    thinking = _object(config["thinkingConfig"], "thinkingConfig", _THINKING)
    budget = thinking.get("thinkingBudget")
    if budget is None:
        return True
    if not isinstance(budget, int) or isinstance(budget, bool) or budget < -1:
        malformed("thinkingBudget is not a number of tokens")
    if budget > ceiling:
        config["thinkingConfig"] = {**thinking, "thinkingBudget": ceiling}
    return budget != 0
