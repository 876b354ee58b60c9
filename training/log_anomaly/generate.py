"""Composes log lines of three grades, English and Chinese: routine, warning, fault.

A fault needs an operator; a warning heals itself or is the client's affair; routine is the rest.
Components are crossed with states, so what is learnt is the state, not the sentence. Many routine
lines carry words of failure ("0 errors", "failure detector started"): wording alone decides
nothing. This is the whole training set where there is no data folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

Grade = Literal["routine", "warning", "fault"]
GRADES: tuple[Grade, ...] = ("routine", "warning", "fault")
GRADE_SHARES = (0.38, 0.22, 0.40)


@dataclass(frozen=True)
class GeneratedLine:
    """``state``: the phrase it was composed around; whole states are held out for validation."""

    text: str
    grade: Grade
    state: str


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(phrase.strip() for phrase in text.strip().split("\n") if phrase.strip())


_HARDWARE = _phrases("""
memory module {n}
DIMM {dev}
node card {n}
link card {n}
fan module {n}
power supply unit {n}
disk {dev}
NVMe drive {dev}
GPU {n}
accelerator {n}
PCIe device {pci}
network interface {nic}
InfiniBand port {n}
switch port {n}
RAID array {dev}
storage controller {n}
CPU {n}
L2 cache of core {n}
DDR channel {n}
fabric link {n}
clock generator
service processor
cooling loop {n}
optical transceiver {n}
""")
_SOFTWARE = _phrases("""
api server
scheduler
database {name}
message broker
web server
job {n}
worker {n}
container {name}
pod {name}
login daemon
node manager
control system
backup task
file system {path}
volume {name}
replica {n}
metadata service
monitor process
kernel
I/O daemon
cluster agent
cache service
command channel to {ip}
collective communicator
""")
_HARDWARE_ZH = _phrases("""
内存条{n}
节点{n}
风扇{n}
电源模块{n}
磁盘{dev}
显卡{n}
GPU {n}
网卡{nic}
交换机端口{n}
存储控制器
处理器{n}
光模块{n}
加速卡{n}
""")
_SOFTWARE_ZH = _phrases("""
调度服务
数据库{name}
消息队列
任务{n}
容器{name}
训练进程{n}
文件系统{path}
监控进程
登录服务
备份任务
副本{n}
元数据服务
""")

_STATES: dict[tuple[str, Grade], tuple[str, ...]] = {
    ("hardware", "fault"): _phrases("""
failed
has failed and was taken out of service
reports uncorrectable errors
is not responding
lost power
has fallen off the bus
shut down because of overheating
hit a fatal internal error
could not be initialized
parity error, not recovered
went offline unexpectedly
has to be replaced
disappeared from the system
timed out and could not be reset
machine check: unrecoverable
link is down
cable fault, high temperature
double-bit ECC error
I/O error, buffer lost
read error at sector {n}, data lost
write failed: device error
interrupt from an address that does not exist
translation lookaside error, access to address {hex} refused
page table fault at {hex}
not enough power on the slot
power was cut
too many soft errors, replace the card
cannot train the link: receiver saw no signal
assertion in firmware, processor stopped
memory failure at {hex}, page cannot be recovered
NVRM: fatal fault {n}, reset required
register shows an internal logic error, halted
"""),
    ("hardware", "warning"): _phrases("""
corrected {n} single-bit errors
hardware put an error right
retry succeeded after {n} attempts
temperature {n} C is near the limit
recovered after a short interruption
is running at reduced speed
correctable error count {n} below the threshold
link retrained, traffic goes on
firmware is older than recommended
more messages like this will be left out
spare bit steered in place of a weak one
will be serviced in the next maintenance window
cache line invalidated and read again
alignment exception handled
"""),
    ("hardware", "routine"): _phrases("""
is healthy
passed its self test
initialized
0 errors
detected
status OK
temperature {n} C
online
enabled
firmware version {n}.{n}.{n}
no errors found
error reporting enabled
machine check enable: {n}
error counters cleared
link is up at {n} Gb/s
cable plugged
restarted as part of a service action
register file: {hex} {hex} {hex}
program counter: {hex}
status register {hex} exception bits 0
exception summary: 0
parity error checking is on
fault injection disabled
power management set to balanced
"""),
    ("software", "fault"): _phrases("""
crashed with signal {n}
terminated by a fatal error
panic, execution stops
killed: out of memory
failed to start after {n} attempts, giving up
cannot connect to {ip}: connection refused
lost its connection to {ip}: reset by peer
socket was closed by the other side, communication failed
read of message header failed: link broken
timed out waiting for {ip}, aborting
deadlock detected, stopping
data is corrupt: checksum mismatch
cannot write {path}: no space left on device
assertion failed in {func}
unhandled exception {exc}, stopping
aborted: {exc}
ended abnormally with code {n}
mount of {path} failed
cannot open {path}: input/output error
segmentation fault at {hex}
stopped, reason code {n}
bad packet header: {n} is no valid type
received a packet nobody waits for
quorum lost, no leader
all replicas are lost
remounted read-only after errors
task blocked for {n} seconds
processor stuck for {n} s, soft lockup
cannot allocate memory
process table is full
certificate has expired, requests are rejected
stale file handle on {path}
heartbeat of {name} missing, node declared dead
kernel oops: unable to handle page at {hex}
journal aborted
"""),
    ("software", "warning"): _phrases("""
retrying connection to {ip}
slow response: {n} ms
client {ip} closed the connection
connection lost and restored
rejected a request: invalid argument from client
login failed for user {name}
queue length {n} is above the soft limit
option {name} is deprecated
timed out after {n} ms, will retry
optional file {path} is missing, using defaults
not found: {path}
permission denied for user {name}
retry {n} of {n} succeeded
leader changed, new election
garbage collection took {n} ms
cache miss rate {n} percent
user program ended with exit code {n}
invalid user program, load refused
speculative attempt started for slow task {n}
replication is behind by {n} s
proxy could not resolve host {name}, trying next
block {hex} already exists, not stored again
"""),
    ("software", "routine"): _phrases("""
started
stopped by the administrator
listening on {ip}
request from {ip} completed in {n} ms
{n} succeeded, 0 failed
received {n} bytes from {ip}
finished task {n}
error handler registered
failover test passed
opened connection through {ip}
session closed for user {name}
no errors in the last {n} minutes
error log rotated
failure detector interval set to {n}
timeout is {n} ms
retries so far: 0
max failures allowed: {n}
sent block {hex} to {ip}
removed block {hex} from {path}
GET {path} status 200 length {n}
kept in memory, {n} KB free
closed after {n} bytes out and {n} bytes in
configuration read from {path}
writing dump file {name}.{n}
recovery completed
exited with code 0
installed its signal handlers
checkpoint {n} written
instance {name} spawned
heartbeat received from {name}
panic_on_oops is set to 0
crash kernel memory reserved
dead letter queue is empty
"""),
    ("hardware_zh", "fault"): _phrases("""
故障，已下线
发生不可纠正错误
无响应
掉电
掉卡，设备丢失
温度过高，已关机
初始化失败
读写错误，数据丢失
链路断开
需要更换
致命内部错误
复位超时
损坏
"""),
    ("hardware_zh", "warning"): _phrases("""
已纠正{n}个单比特错误
重试{n}次后成功
温度{n}度，接近上限
短暂中断后恢复
降速运行
固件版本较旧
"""),
    ("hardware_zh", "routine"): _phrases("""
状态正常
自检通过
初始化完成
错误数0
温度{n}度
已上线
未发现错误
链路已建立，速率{n}
错误计数已清零
"""),
    ("software_zh", "fault"): _phrases("""
崩溃，信号{n}
内存不足，进程被杀死
显存不足，任务失败
无法连接{ip}，连接被拒绝
网络超时，任务终止
磁盘空间已满，写入失败
数据损坏，校验失败
启动失败，已放弃
死锁，停止运行
镜像拉取失败
驱动版本不匹配，无法加载
挂载{path}失败
心跳丢失，节点判定死亡
异常退出，退出码{n}
所有副本丢失
"""),
    ("software_zh", "warning"): _phrases("""
连接超时，正在重试
响应较慢，耗时{n}毫秒
客户端{ip}断开连接
用户{name}登录失败，密码错误
队列长度{n}超过软限制
找不到可选配置{path}，使用默认值
主节点切换完成
请求参数非法，已拒绝
"""),
    ("software_zh", "routine"): _phrases("""
启动成功
监听{ip}
处理请求完成，耗时{n}毫秒
成功{n}个，失败0个
任务{n}完成
错误日志已轮转
用户{name}会话关闭
最近{n}分钟无错误
检查点{n}已保存
故障检测已开启
备份完成
收到{name}的心跳
"""),
}
_SUBJECTS = {
    "hardware": _HARDWARE,
    "software": _SOFTWARE,
    "hardware_zh": _HARDWARE_ZH,
    "software_zh": _SOFTWARE_ZH,
}
_KINDS = ("hardware", "software", "hardware_zh", "software_zh")
_KIND_SHARES = (0.34, 0.40, 0.12, 0.14)

_NAMES = _phrases("""
alpha
billing-7d9f
core
edge-router
gateway
ingest
kafka-main
ledger
mysql-prod
node-17
orders
rank3
redis-a
storage-b
train-llm-0
users
web-5c6d
zeus
""")
_FUNCTIONS = _phrases("""
void start()
init_memory
send_packet
do_commit
alloc_page
handleRequest
rx_loop
""")
_EXCEPTIONS = _phrases("""
IllegalStateException
NullPointerException
IOException: broken pipe
RuntimeError: invalid state
OutOfMemoryError
EOFException
TimeoutException
std::bad_alloc
""")
_LEVELS: dict[Grade, tuple[str, ...]] = {
    "routine": ("INFO", "INFO", "DEBUG", "NOTICE", "info", "FATAL"),
    "warning": ("WARN", "WARNING", "INFO", "ERROR", "FATAL"),
    "fault": ("ERROR", "FATAL", "INFO", "CRITICAL", "WARN", "SEVERE", "err"),
}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def compose_line(generator: np.random.Generator, *, header_share: float = 0.4) -> GeneratedLine:
    """One line; with a header of some common format in ``header_share`` of the cases."""
    kind = _KINDS[int(generator.choice(len(_KINDS), p=_KIND_SHARES))]
    grade = GRADES[int(generator.choice(len(GRADES), p=GRADE_SHARES))]
    state = _pick(generator, _STATES[kind, grade])
    subject = _pick(generator, _SUBJECTS[kind])
    if kind.endswith("_zh"):
        form = _pick(generator, ("{subject}{state}", "{subject} {state}", "{subject}：{state}"))
    else:
        form = _pick(
            generator,
            (
                "{subject} {state}",
                "{subject}: {state}",
                "{state} ({subject})",
            ),
        )
    if generator.random() < 0.12:
        form = "{state}"
    text = _fill(form.replace("{subject}", subject).replace("{state}", state), generator)
    if generator.random() < 0.15:
        text = text[:1].upper() + text[1:]
    if generator.random() < header_share:
        text = random_header(generator, grade) + text
    return GeneratedLine(text, grade, state)


def generate_lines(generator: np.random.Generator, count: int) -> list[GeneratedLine]:
    """``count`` lines of all grades, English and Chinese."""
    return [compose_line(generator) for _ in range(count)]


def random_header(generator: np.random.Generator, grade: Grade) -> str:
    """Time, host, level and source as syslog, Java, Kubernetes, dmesg or a supercomputer."""
    n = lambda low, high: int(generator.integers(low, high))  # noqa: E731
    clock = f"{n(0, 24):02}:{n(0, 60):02}:{n(0, 60):02}"
    date = f"20{n(5, 27):02}-{n(1, 13):02}-{n(1, 29):02}"
    level = _pick(generator, _LEVELS[grade])
    host, name = f"host{n(1, 400)}", _pick(generator, _NAMES)
    month = _MONTHS[n(0, 12)]
    forms = (
        f"{month} {n(1, 29):2} {clock} {host} {name}[{n(100, 65000)}]: ",
        f"{month} {n(1, 29):2} {clock} {host} kernel: ",
        f"{date} {clock},{n(0, 1000):03} {level} [{name}-{n(1, 30)}] com.example.{name}.Main: ",
        f"{date}T{clock}.{n(0, 10**6):06}Z {level} {name} ",
        f"{level[0]}{n(101, 1230):04} {clock}.{n(0, 10**6):06} {n(1, 99)} {name}.go:{n(1, 900)}] ",
        f"[{n(0, 10**6)}.{n(0, 10**6):06}] ",
        f"{date} {clock} [{level}] ",
        f"{n(10**9, 2 * 10**9)} {date.replace('-', '.')} R{n(0, 64):02}-M{n(0, 2)} {level} ",
        f"{level}: ",
        f"[{level.lower()}] {name}: ",
    )
    return forms[n(0, len(forms))]


def _pick(generator: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(generator.integers(len(options)))]


def _fill(text: str, generator: np.random.Generator) -> str:
    n = lambda low, high: int(generator.integers(low, high))  # noqa: E731

    def value(match: re.Match[str]) -> str:
        slot = match[1]
        if slot == "n":
            return str(n(1, 10 ** n(1, 6)))
        if slot == "hex":
            return f"0x{n(16, 2**40):x}"
        if slot == "ip":
            address = f"10.{n(0, 256)}.{n(0, 256)}.{n(1, 255)}"
            return address if generator.random() < 0.5 else f"{address}:{n(80, 65000)}"
        if slot == "pci":
            return f"0000:{n(1, 200):02x}:00.{n(0, 8)}"
        if slot == "path":
            return f"/{_pick(generator, ('var', 'data', 'mnt', 'opt'))}/{_pick(generator, _NAMES)}"
        lists = {
            "name": _NAMES,
            "func": _FUNCTIONS,
            "exc": _EXCEPTIONS,
            "dev": ("sda", "sdb1", "nvme0n1", "md0", "dm-3", "A1", "B2"),
            "nic": ("eth0", "ens3f1", "bond0", "mlx5_0", "ib0"),
        }
        return _pick(generator, lists[slot])

    return re.sub(r"\{(\w+)\}", value, text)
