// Something to try: what a log, log lines and a metric look like. Made up, and the same every time.

export const EXAMPLE_LOG = `2026-01-12 08:14:02 INFO launcher: job 48213 (llm-13b-sft) started on node-17, node-18: 16 ranks
2026-01-12 08:14:05 INFO launcher: NCCL 2.21.5, driver 550.54.15, CUDA 12.4
2026-01-12 08:14:31 INFO data: 1,204,993 samples in 128 shards, 数据集校验通过
2026-01-12 08:15:10 INFO model: 13.0 B parameters, bf16, ZeRO stage 2
2026-01-12 08:16:44 INFO train: step 10 loss 2.3187 lr 1.2e-06 tokens/s 41,220
2026-01-12 08:18:15 INFO train: step 20 loss 2.2410 lr 2.4e-06 tokens/s 41,305
2026-01-12 08:19:47 INFO train: step 30 loss 2.1873 lr 3.6e-06 tokens/s 41,298
2026-01-12 08:20:02 WARNING data: batch 37 holds a sequence of 16,384 tokens
[rank3]: Traceback (most recent call last):
[rank3]:   File "train.py", line 214, in <module>
[rank3]:     main(parse_arguments())
[rank3]:   File "train.py", line 187, in main
[rank3]:     loss.backward()
[rank3]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 3.94 GiB. GPU 3 has a total capacity of 79.15 GiB of which 1.02 GiB is free. Of the allocated memory 74.88 GiB is allocated by PyTorch.
2026-01-12 08:20:09 ERROR launcher: rank 3 exited with code 1
2026-01-12 08:20:09 INFO launcher: stopping the other ranks
[rank7]: NCCL WARN [Service thread] Connection closed by remote peer node-17
2026-01-12 08:20:40 ERROR launcher: job 48213 failed after 6 m 38 s
`;

export const EXAMPLE_LINES = `Jan 12 03:10:01 node-17 systemd[1]: Started Daily apt download activities.
Jan 12 03:10:07 node-17 sshd[20931]: Accepted publickey for root from 10.20.3.4 port 51514 ssh2
Jan 12 03:11:45 node-17 kernel: NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.
Jan 12 03:11:46 node-17 kernel: NVRM: Xid (PCI:0000:5e:00): 79, GPU has fallen off the bus.
Jan 12 03:12:10 node-17 sshd[20977]: Accepted publickey for root from 10.20.3.9 port 40122 ssh2
Jan 12 03:12:31 node-18 kernel: EDAC MC0: 1 UE memory read error on CPU_SrcID#0_Channel#1 (channel:1 page:0x7f12)
Jan 12 03:12:55 node-18 kernel: EXT4-fs error (device nvme1n1p1): ext4_find_entry: inode #524291: reading directory lblock 0
Jan 12 03:13:20 node-18 crond[1871]: (root) CMD (/usr/lib64/sa/sa1 1 1)
Jan 12 03:14:02 node-19 monitor: 节点心跳正常，延迟 3 ms
Jan 12 03:14:09 node-19 monitor: 存储卷 /data 写入失败：设备上没有剩余空间
Jan 12 03:14:30 node-19 monitor: 节点心跳正常，延迟 4 ms
`;

const STEP_SECONDS = 300;
const POINTS = 2016;

/** A disk that fills, with a daily wave: a week in steps of five minutes, until now. */
export function exampleCsv() {
  const end = Math.floor(Date.now() / 1000 / STEP_SECONDS) * STEP_SECONDS;
  const rows = ["timestamp,value"];
  let state = 20260112;
  for (let i = 0; i < POINTS; i += 1) {
    const time = end - (POINTS - 1 - i) * STEP_SECONDS;
    // A generator of its own, so that the example is the same every time.
    state = (state * 48271) % 2147483647;
    const noise = (state / 2147483647 - 0.5) * 1.6;
    const wave = 5 * Math.sin((i / 288) * 2 * Math.PI);
    rows.push(`${time},${(52 + (i / POINTS) * 32 + wave + noise).toFixed(2)}`);
  }
  return `${rows.join("\n")}\n`;
}
