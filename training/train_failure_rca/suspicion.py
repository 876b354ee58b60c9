"""Which words make a line worth reading, and which say that a job failed.

Runs inside tritonserver: stdlib only. A line costs about as much as its characters: the words are
one expression grouped by their beginnings, on lower-cased text, as Python's ``re`` tries each
alternative anew at each character.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Near these a cause may be. Wide: a harmless line costs a little time, a missed one the answer.
_WORDS = """
error|fail|fatal|exception|traceback|abort|kill|denied|refused|timed out|timeout|time out|oom|xid
warn|out of mem|out_of_mem|memory|quota|no space|unable|cannot|can't|can not|could not|couldn't
not found|no such|mismatch|reset|invalid|missing|insufficient|incompatible|unauthorized|forbidden
corrupt|lost|down|flap|fallen off|bad_alloc|blocked|exceed|no module|no matching|not permitted
not present|conflict|unsupported|unhealthy|unavailable|critical|hang|hung|inactive|overrid
times out|pressure|not a |don't match|not in |unplugged|uncorrect|unrecognized|required|exit code
exitcode|exit status|signal|segfault|segmentation|core dump|stall|assert|edquot|dquot|enospc|eacces
port_err|err!|backoff|back-off|errimage|unbound|rejected|double bit|double-bit|disconnect
link is|nvlink|ecc |unknown|undefined|not defined|unexpected|must be|should be|expected|illegal
too many|too large|too long|exhaust|starv|stuck|not ready|notready|evict|preempt|terminat|cancel
walltime|time limit|licen|unschedul|failedsched|nan|diverg|crash|panic|broken|bus err|dead|died
not divisible|truncat|old |newer|older|deprecated|not compiled|not match|does not|doesn't|did not
unreachable|no route|expired|sigterm|sigkill|sigsegv|sigabrt|errno|status=|retry|no longer|overlap
not support|not available|no available|not exist|nonexist|already|in use|duplicate|ambiguous
read-only|readonly|401|403|bad |not enough|larger than|limit|full|flush|lookup|refus|stopp|skipp
interrupt|no kernel|no supported|out_of_me|respon|closed|closing|giving up|gave up|different|100%
detected|notfound|not built|built for|without|rc=|code=|syntax|indent|no valid|not initialized
""".replace("\n", "|").strip("|")
_CHINESE = """
错误|失败|异常|超时|不足|拒绝|终止|掉卡|超限|不匹配|损坏|卡死|抖动|已满|不能|不可用|未找到|故障
查询不到|过旧|中断|停止|权限|没有空间|空间|限额|配额|断开|找不到|不一致|无法|不配套|崩溃|杀死|段错误
退出|耗尽|丢失|不存在|缺少|非法|无效|不支持|过大|过低|超出|越界|溢出|挂起|无响应|复位|离线|不兼容
冲突|未定义|未安装|报错|抢占|取消|不符|禁止|未授权|不通|重置|死锁|等待|只读|仅|未|不同|缺失|不是|版本
""".replace("\n", "|").strip("|")
# With these a frame of a traceback or of a C++ stack begins: what it shows is part of a proof.
_FRAME = re.compile(r"\s*File \"|\s*\^+\s*$|\s*raise ")

# The job itself (not a line about a step) says that it failed.
FAILED = re.compile(
    r"Traceback \(most recent call last\)|\b\w+(?:Error|Exception)\b:|\bFATAL\b|\bFatal\b"
    r"|[Ee]xit(?:ed|ing)?(?: with)?(?: exit)?[ _]?(?:[Cc]ode|status):?[ =]*-?[1-9]"
    r"|exitcode *: -?[1-9]|core dumped|[Ss]egmentation fault|\bpanic\b|\bKilled\b|Aborted"
    r"|[Jj]ob .*\b(?:failed|FAILED|CANCELLED|cancelled|preempted|terminated)"
    r"|KeyboardInterrupt|SIG(?:KILL|TERM|SEGV|ABRT|BUS|ILL|FPE)\b|CANCELLED (?:AT|BY|DUE)"
    r"|[Pp]reempt(?:ed|ion|ing)\b|NodeNotReady|NODE_FAIL|node.{0,20}(?:failed|not ready|rebooted)"
    r"|NVRM: Xid|[Ll]oss (?:is|became|was|turned) (?:nan|NaN|inf)|nan loss|diverged|Exiting run"
    r"|free\(\): invalid|double free|stack smashing|corrupted (?:size|double)|std::terminate"
    r"|terminate called|killed by |\"?level\"?[:=] ?\"?(?:fatal|critical)|\bCRITICAL\b"
    r"|ERROR .*(?:stopped|inconsistent)|FailedScheduling|Preempting\b|nodes are available: "
    r"|Unschedulable|Evict(?:ed|ion)\b"
    r"|[Ww]all ?time|DUE TO TIME LIMIT|TIMEOUT\b.*[Jj]ob|scancel|licen[sc]e.{0,40}(?:expired|denied"
    r"|not|unavail|checkout|fail)|Bus error|Illegal instruction|Floating point exception"
    r"|\bsignal (?:6|7|8|9|11|15)\b|stopped making progress|did not finish|FAILED\b"
    r"|death signal|malloc\(\): |[Jj]obs?,? .{0,40}(?:failed|stopped|refused|terminated|killed)"
    r"|(?:run|study|training|program|task) (?:was )?(?:aborted|stopped|stops|failed|killed)"
    r"|[Ll]icen[sc](?:e|ing) .{0,20}(?:failed|error)|所需.*不可用|程序终止"
    r"|(?:已|将)被(?:调度|驱逐|终止)"
    r"|手动取消|(?:任务|作业|训练)已?(?:停止|终止|取消)"
    r"|训练停止|终止，?原因|训练中断"
    r"|(?:任务|作业|训练|进程)[^，。]{0,12}(?:失败|终止|被杀|取消|抢占|中断)"
    r"|崩溃|段错误|已杀死|核心已转储|运行失败|异常退出|退出码[:：]? ?[1-9]"
    r"|被(?:抢占|驱逐|取消|强制)|发散",
)
# No failure of this job: a plan, a setting, a count of none, something already mended.
HARMLESS = re.compile(
    r"\b0 (?:errors?|failed|failures?)|succeeded|recover(?:ed|ing)|retrying|will retry|attempt \d"
    r"|\bWARN:|\w+Warning\b|\bwarning: |\bINFO\b|\bDEBUG\b|ignor(?:ed|ing)|skipp|optional"
    r"|fall(?:ing|s)? back|sample text|已恢复|成功|重试|忽略|跳过"
)


def _grouped(words: Iterable[str]) -> str:
    """The words as one expression, those of one beginning together."""
    groups: dict[str, list[str]] = {}
    for word in sorted(set(words)):
        groups.setdefault(word[0], []).append(word[1:])
    parts = []
    for first, rests in groups.items():
        if "" in rests:
            parts.append(re.escape(first))
        elif len(rests) == 1 or len(first) > 1:
            parts.append(re.escape(first) + "(?:" + "|".join(map(re.escape, rests)) + ")")
        else:
            parts.append(re.escape(first) + "(?:" + _grouped(rests) + ")")
    return "|".join(parts)


_SUSPICIOUS = re.compile(_grouped([*_WORDS.split("|"), *_CHINESE.split("|")]))


def is_suspicious(text: str) -> bool:
    """Whether a cause may be in the line, or next to it."""
    return _SUSPICIOUS.search(text.lower()) is not None


def is_frame(text: str) -> bool:
    """Whether the line is part of a traceback, not its message."""
    return _FRAME.match(text) is not None


def is_failure(text: str) -> bool:
    """Whether the line says that something failed for good, whatever the cause."""
    found = FAILED.search(text)
    return found is not None and HARMLESS.search(text) is None
