"""No secret gets through, whatever surrounds it; what is none stays; hostile text costs no more."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.job_diagnosis.secrets import mask_secrets, mask_words

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
drawn = st.text(alphabet=LETTERS, min_size=36, max_size=60).filter(
    lambda text: any(c.isdigit() for c in text) and any(c.isalpha() for c in text)
)
upper = st.text(alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", min_size=16, max_size=16)

# Each with {} for the secret.
SAID = (
    "password={}",
    "Password: {}",
    "PASSWD = '{}' # comment",
    "db_password := {}",
    '{{"password": "{}", "user": "me"}}',
    '{{\\"api_key\\": \\"{}\\"}}',
    "os.environ['WANDB_API_KEY'] = '{}'",
    "export HF_TOKEN={}",
    "aws_secret_access_key = {}",
    "client_secret={}&grant_type=x",
    "Authorization: Bearer {}",
    "'Authorization': 'Basic {}'",
    "curl -H 'authorization: token {}'",
    "got Bearer {} from the proxy",
    "X-Api-Key: {}",
    "Set-Cookie: session={}; HttpOnly",
    "mysql --password {} -h db",
    "train.py --hub-token={}",
    "sshpass -p {} ssh node",
    "machine api.wandb.ai login user password {}",
    "postgres://user:{}@db:5432/x",
    "redis://:{}@cache/0",
    "https://x-access-token:{}@github.com/a/b.git",
    "https://{}@github.com/a/b.git",
    "https://s3/x?X-Amz-Signature={}&y=1",
    "DefaultEndpointsProtocol=https;AccountKey={};",
    "https://oapi.dingtalk.com/robot/send?access_token={}",
    "https://open.feishu.cn/open-apis/bot/v2/hook/{}",
    "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key={}",
    "https://hooks.slack.com/services/T01/B02/{}",
    "密码：{}",
    "登录口令为{}",
    "token: {}",
    "hf_{}",
    "ghp_{}",
    "github_pat_{}",
    "glpat-{}",
    "xoxb-{}",
    "sk-proj-{}",
    "AIza{}",
    "eyJhbGciOiJI.{}.{}",
)
CALM = (
    "num_tokens: 1048576 max_tokens=4096 tokens/s: 123456.7",
    "pad_token: [PAD] eos_token=</s> tokenizer=/data/tokenizer.json",
    "Permission denied (publickey,password).",
    "FATAL: password authentication failed for user postgres",
    "KeyError: 'api_key'",
    "PWD=/root/train OLDPWD=/root",
    "secretName: regcred not found",
    "password_file=/run/secrets/db password: None",
    "step 12 loss=2.31 grad_norm: 0.5 author=li basic usage",
    "https://pypi.org/simple/torch ssh://git@github.com/a/b",
    "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
    "密码错误次数过多",
)


@given(
    template=st.sampled_from(SAID),
    secret=drawn,
    before=st.sampled_from(["", "2026-01-01 ERROR ", "[rank0]: ", "错误 ", '{"message": "']),
    after=st.sampled_from(["", "\n", "\nstep 1", " at line 3\n", "\r\n"]),
)
@settings(deadline=None, max_examples=400)
def test_a_secret_goes_and_the_words_around_it_stay(
    template: str, secret: str, before: str, after: str
) -> None:
    text = (before + template.replace("{{", "{").replace("}}", "}") + after).replace("{}", secret)
    masked, count = mask_secrets(text.encode())
    assert count >= 1
    assert secret.encode() not in masked
    # Nor a large part of it.
    assert secret[4:-4].encode() not in masked
    assert masked.startswith(before.encode())
    assert masked.count(b"\n") == text.count("\n")
    assert mask_secrets(masked)[0] == masked


@given(prefix=st.sampled_from(["AKIA", "ASIA"]), rest=upper)
def test_cloud_keys(prefix: str, rest: str) -> None:
    assert mask_words(f"id {prefix}{rest}, region") == "id [masked], region"


@pytest.mark.parametrize("text", CALM)
def test_what_is_no_secret_stays(text: str) -> None:
    assert mask_words(text) == text


@given(st.lists(st.text(alphabet="ab=: '\"\\/@-.\n密码", max_size=12), max_size=30))
@example(["password", "=", "'", "\n"])
@settings(deadline=None)
def test_lines_stay_where_they_are_and_masking_twice_changes_nothing(parts: list[str]) -> None:
    text = "password=".join(parts).encode()
    masked, _ = mask_secrets(text)
    assert masked.count(b"\n") == text.count(b"\n")
    assert mask_secrets(masked)[0] == masked


KEY = "\n".join(["MIIEpAIBAAKCAQEA7" + "bQ9" * 15 + "XY"] * 12 + ["c2hvcnQ="])


@pytest.mark.parametrize("kind", ["RSA PRIVATE KEY", "OPENSSH PRIVATE KEY", "PRIVATE KEY"])
@pytest.mark.parametrize("before", ["", "[rank1]: "])
def test_private_keys(kind: str, before: str) -> None:
    lines = [f"-----BEGIN {kind}-----", *KEY.split("\n"), f"-----END {kind}-----", "after: 1"]
    text = "\n".join(before + line for line in lines)
    masked = mask_words(text)
    assert not [line for line in KEY.split("\n") if line in masked]
    assert len(masked.split("\n")) == len(lines)
    assert masked.endswith(before + "after: 1")
    # In JSON it is one line, and where the first lines were cut away only inner lines are there.
    escaped = mask_words(json.dumps({"key": text}))
    assert "bQ9bQ9" not in escaped
    assert "bQ9bQ9" not in mask_words(KEY)


def test_a_key_without_an_end_does_not_cost_the_log() -> None:
    text = "-----BEGIN PRIVATE KEY-----\n" + KEY + "\n" + "step 12 is calm\n" * 20
    assert mask_words(text).count("step 12 is calm") >= 15


HOSTILE = [
    *("password=", 'password="', "password \t", "a:", "://a", "://", "@", "eyJ", "eyJaaaaaaaaaa."),
    *("A", "a1", "-", "--a", "--token", "login a ", "token=", "cookie:", "\\", '"', "bearer "),
    *("authorization=", "sshpass -p", "gla", "sk-", "密码", "x-amz-", " ", "api_", "1", "://a:b@"),
    *("-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\n", "password=[masked]", "=>"),
    *("password=<", "password=none,", "AAAA\n", "pass\n", "secret_", "\t=", "id_token", "为"),
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_text_is_masked_in_linear_time(piece: str) -> None:
    """A quadratic rule would need hours for a megabyte; a minute is far above any busy machine."""
    text = (piece * ((1 << 20) // len(piece.encode()) + 1)).encode()
    started = time.process_time()
    mask_secrets(text)
    assert time.process_time() - started < 20
