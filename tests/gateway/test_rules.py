"""Every secret rule has something that it must find and something alike that it must leave alone.

The examples are put together from parts, so that no scanner of repositories takes them for real.
"""

from __future__ import annotations

import re
import string

import pytest

from gateway.customs.scan.rules import load
from gateway.customs.scan.scanner import Scanner
from policies.secret_rules import SecretRule, secret_rules

A = string.ascii_letters + string.digits
HEX = "0123456789abcdef" * 4
UP = string.ascii_uppercase + "234567"

POSITIVE: dict[str, str] = {
    "aws-access-key": "AKIA" + UP[:16],
    "aws-secret-key": "aws_secret_access_key = " + A[:40],
    "github-token": "ghp_" + A[:36],
    "github-fine-grained": "github_pat_" + A[:22] + "_" + A[:59],
    "gitlab-token": "glpat-" + A[:20],
    "slack-token": "xoxb-" + "123456789012-" + A[:24],
    "slack-app-token": "xapp-1-" + "A0123456789-" + "1234567890123-" + HEX[:64],
    "slack-webhook": "https://hooks.slack.com/services/T01234567/" + "B01234567/" + A[:24],
    "stripe-key": "sk_live_" + A[:24],
    "stripe-webhook": "whsec_" + A[:32],
    "openai-key": "sk-proj-" + A[:48],
    "openai-legacy-key": "sk-" + A[:20] + "T3Blbk" + "FJ" + A[20:40],
    "anthropic-key": "sk-ant-" + "api03-" + A[:40],
    "google-api-key": "AIza" + A[:35],
    "google-oauth-secret": "GOCSPX-" + A[:28],
    "google-access-token": "ya29." + A[:40],
    "gcp-service-account": '"private_key_id": "' + HEX[:40] + '"',
    "huggingface-token": "hf_" + A[:34],
    "npm-token": "npm_" + A[:36],
    "pypi-token": "pypi-" + "AgEIcHlwaS5vcmc" + A[:60],
    "rubygems-token": "rubygems_" + HEX[:48],
    "docker-token": "dckr_pat_" + A[:27],
    "jwt": "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0In0." + A[:43],
    "private-key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "putty-key": "PuTTY-User-" + "Key-File-2: ssh-rsa",
    "age-key": "AGE-SECRET-" + "KEY-1" + "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L" + "QPZRY9X8GF2TVDW0S3JN54KHCE",
    "url-password": "postgresql://app:" + "s3cret-words@db.example:5432/app",
    "azure-storage-key": "AccountKey=" + A[:62] + A[:24] + "==",
    "azure-sas": "https://x.blob.example/c?sv=1&sig=" + A[:43] + "%3D",
    "azure-client-secret": "abc8Q~" + A[:34],
    "twilio-key": "SK" + HEX[:32],
    "sendgrid-key": "SG." + A[:22] + "." + A[:43],
    "mailgun-key": "key-" + HEX[:32],
    "mailchimp-key": HEX[:32] + "-us12",
    "telegram-token": "123456789:" + "AA" + A[:33],
    "discord-token": "M" + A[:23] + "." + A[:6] + "." + A[:27],
    "discord-webhook": "https://discord.com/api/webhooks/12345678901234567/" + A[:62] + "abcdef",
    "digitalocean-token": "dop_v1_" + HEX[:64],
    "databricks-token": "dapi" + HEX[:32],
    "shopify-token": "shpat_" + HEX[:32],
    "square-token": "sq0atp-" + A[:22],
    "linear-key": "lin_api_" + A[:40],
    "notion-token": "ntn_" + A[:46],
    "vault-token": "hvs." + A[:30],
    "terraform-token": A[:14] + ".atlasv1." + A[:60],
    "grafana-token": "glsa_" + A[:32] + "_" + HEX[:8],
    "newrelic-key": "NRAK-" + UP[:27],
    "sentry-token": "sntryu_" + HEX[:64],
    "groq-key": "gsk_" + A[:52],
    "replicate-token": "r8_" + A[:37],
    "perplexity-key": "pplx-" + A[:48],
    "xai-key": "xai-" + A + A[:18],
    "basic-auth": "Authorization: Basic " + A[:24],
}

NEGATIVE: dict[str, str] = {
    "aws-access-key": "AKIA is how such a key begins; AKIASHORT is none",
    "aws-secret-key": "aws_secret_access_key = your-key-here",
    "github-token": "ghp_short and ghp_" + "x" * 20,
    "github-fine-grained": "github_pat_example",
    "gitlab-token": "glpat-your-token",
    "slack-token": "xoxb-token",
    "slack-app-token": "xapp-1-A0-2-short",
    "slack-webhook": "https://hooks.slack.com/services/T/B/x",
    "stripe-key": "sk_live_short, pk_live_" + A[:24],
    "stripe-webhook": "whsec_...",
    "openai-key": "sk-proj-...",
    "openai-legacy-key": "sk-" + A[:40],
    "anthropic-key": "sk-ant-api03-...",
    "google-api-key": "AIza" + A[:20],
    "google-oauth-secret": "GOCSPX-example",
    "google-access-token": "ya29.example",
    "gcp-service-account": '"private_key_id": "example"',
    "huggingface-token": "hf_hub_download_and_cache_a_model_of_this_name",
    "npm-token": "npm_config_registry",
    "pypi-token": "pypi-token and pypi-AgE",
    "rubygems-token": "rubygems_version",
    "docker-token": "dckr_pat_x",
    "jwt": "eyJhbGciOiJIUzI1NiJ9 alone is a header",
    "private-key": "-----BEGIN PUBLIC KEY-----",
    "putty-key": "PuTTY-User-Key-File",
    "age-key": "age1" + "qpzry9x8gf2tvdw0s3jn54khce6mua7l",
    "url-password": "https://example.com:8443/a@b and postgres://user:${PASSWORD}@db/x",
    "azure-storage-key": "AccountKey=...",
    "azure-sas": "?sig=short",
    "azure-client-secret": "abc8Q~short",
    "twilio-key": "SK" + HEX[:20] + " and AC" + HEX[:32],
    "sendgrid-key": "SG.short.short",
    "mailgun-key": "key-" + HEX[:12],
    "mailchimp-key": HEX[:32] + "-eu1",
    "telegram-token": "123456789:short",
    "discord-token": "Module.import.something",
    "discord-webhook": "https://discord.com/api/webhooks/1/x",
    "digitalocean-token": "dop_v1_example",
    "databricks-token": "dapi" + HEX[:12],
    "shopify-token": "shpat_example",
    "square-token": "sq0atp-short",
    "linear-key": "lin_api_key",
    "notion-token": "ntn_short and secret_santa",
    "vault-token": "hvs.short",
    "terraform-token": "something.atlasv1.short",
    "grafana-token": "glsa_example",
    "newrelic-key": "NRAK-EXAMPLE",
    "sentry-token": "sntrys_short",
    "groq-key": "gsk_example",
    "replicate-token": "r8_short",
    "perplexity-key": "pplx-short",
    "xai-key": "xai-short",
    "basic-auth": "Authorization: Bearer <token>",
}


def rule_ids() -> list[str]:
    return [rule.id for rule in secret_rules().rules]


def test_every_rule_has_both_examples_and_a_name_of_its_own() -> None:
    assert sorted(rule_ids()) == sorted(set(rule_ids())) == sorted(POSITIVE) == sorted(NEGATIVE)
    assert load().version >= 1


@pytest.mark.parametrize("rule", rule_ids())
def test_rule(rule: str) -> None:
    for before, after in (("", ""), ("the key is ", " and so on"), ("x=", "\n")):
        found = {hit.rule for hit in load().hits(before + POSITIVE[rule] + after)}
        assert rule in found, (before, after)
    assert rule not in {hit.rule for hit in load().hits(NEGATIVE[rule])}


def test_a_token_is_found_over_fields_in_keys_and_wrapped() -> None:
    scanner, token = Scanner(load(), []), POSITIVE["github-token"]
    for record in (
        {"a": token[:10], "b": token[10:]},
        {token: 1},
        {"a": token.encode().hex()},
        {"a": [[token]]},
        {"a": "\u200b".join(token)},
    ):
        assert [finding.rule for finding in scanner.findings(record)] == ["github-token"], record


def test_a_key_beside_its_name() -> None:
    record = {"aws_secret_access_key": A[:40]}
    assert [finding.rule for finding in Scanner(load(), []).findings(record)] == ["aws-secret-key"]


def test_markers_that_ask_to_be_let_through_are_ignored() -> None:
    text = POSITIVE["npm-token"] + "  # gitleaks:allow nosec pragma: allowlist secret"
    assert Scanner(load(), []).findings({"a": text})


def test_the_end_of_every_text_is_reached() -> None:
    assert load().matching("") == []
    assert load().matching("\x00casemate-end\x00") == []
    assert load().matching("a" * 1_000_000 + " " + POSITIVE["npm-token"]) != []


@pytest.mark.parametrize("rule", secret_rules().rules, ids=lambda rule: rule.id)
def test_the_ends_of_words_can_be_taken_out_of_a_rule(rule: SecretRule) -> None:
    """The sieve does it: nothing else is written as they are, and what is left finds the same in a word, too."""
    assert rule.pattern.count(r"\b") == re.sub(r"\\\\|\[(?:\\.|[^\]])*\]", "", rule.pattern).count(r"\b")
    re.compile(rule.pattern.replace(r"\b", ""))
