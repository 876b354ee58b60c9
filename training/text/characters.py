"""English glosses of Chinese characters common in operations logs.

An English encoder starts each new character from its gloss's embeddings; started from the mean
embedding instead, Chinese faults are not recalled at all.
"""

_TABLE = """
显 display video|存 memory store|内 inside internal|不 not|足 enough sufficient|网 network
络 network link|超 exceed over|时 time|磁 magnetic disk|盘 disk drive|空 empty space
间 between space|满 full|权 permission right|限 limit|拒 refuse deny|绝 refuse absolutely
镜 image mirror|像 image|拉 pull|取 fetch get|错 error wrong|误 mistake error|驱 drive driver
动 move dynamic|版 version|本 version this|匹 match|配 match configure|设 device set
备 device backup|掉 drop lost|卡 card stuck|失 lost fail|败 failed defeat|异 abnormal
常 normal usual|正 normal correct|成 success complete|功 success|完 finish complete|启 start
停 stop|止 stop|重 restart again|试 try test|连 connect|接 connect|断 disconnect broken
开 open start|关 close off|闭 close|机 machine|器 device machine|服 service|务 service task
任 task|进 process enter|程 process|线 line thread|主 main host|节 node|点 point node|集 cluster
群 cluster|温 temperature|度 degree|高 high|低 low|过 over exceed|热 hot heat|风 fan wind|扇 fan
电 power electric|源 power source|压 pressure voltage|流 flow current|硬 hard hardware
件 file component|软 soft software|固 firmware firm|坏 bad broken|损 damage|丢 lose drop
包 packet package|发 send|送 send|收 receive|到 arrive to|数 number data|据 data
库 database library|表 table|文 file text|写 write|读 read|入 input enter|出 output exit
校 check verify|验 verify check|检 check detect|查 check query|测 test detect|监 monitor
控 control|告 alert report|警 alarm warning|报 report alarm|严 serious severe|致 fatal cause
命 fatal command|崩 crash collapse|溃 crash|死 dead|锁 lock|挂 hang mount|载 load mount
起 start up|加 add load|减 reduce|增 increase|大 big large|小 small|多 many|少 few|等 wait
待 wait pending|响 response|应 response application|请 request|求 request|返 return
回 return back|复 recover repeat|恢 recover|修 repair fix|改 change|变 change|更 update change
新 new|旧 old|删 delete|除 remove delete|清 clean clear|理 manage process|管 manage
户 user account|用 use user|名 name|密 secret password|码 code password|登 login|录 login record
证 certificate|书 certificate|认 authenticate|授 authorize|访 access visit|问 access ask
禁 forbidden|无 no without|法 cannot method|未 not yet|已 already done|可 can available
能 can able|使 use make|被 was by|由 by from|在 at in|的 of|了 done|是 is|有 have|个 item unit
次 times|秒 second|分 minute|钟 clock|毫 milli|天 day|日 day log|志 log|周 week|端 port end
口 port interface|地 address ground|址 address|路 path route|径 path|目 directory item|块 block
页 page|区 area partition|层 layer|级 level|核 core kernel|心 heartbeat heart|跳 jump beat
步 step sync|同 same sync|训 training|练 training|模 model|型 model type|参 parameter|批 batch
学 learning|习 learning|率 rate|值 value|阈 threshold|均 average|最 most|总 total
前 before current|后 after|上 up on|下 down|中 in middle|外 outside external|当 current when
稳 stable|定 stable fixed|态 state|状 state status|健 healthy|康 healthy|好 good|占 occupy usage
量 quantity|容 capacity|缓 cache slow|慢 slow|快 fast|延 delay latency|迟 late delay|抖 jitter
闪 flap flash|链 link chain|物 physical|虚 virtual|拟 virtual|调 schedule adjust|队 queue
列 queue list|池 pool|执 execute|行 execute line|运 run|作 job work|业 job business|退 exit
终 terminate end|结 result end|束 end finish|强 force strong|制 force control|溢 overflow
越 exceed cross|界 bound|段 segment|指 pointer point|针 pointer|非 not illegal|缺 missing lack
找 find|冲 conflict|突 conflict|够 enough|仅 only|还 still|副 replica|份 copy backup|迁 migrate
移 move|扩 expand|升 upgrade|降 lower drop|计 plan compute|划 plan|初 initial|始 begin|化 change
创 create|建 build create|部 deploy part|署 deploy|处 handle|触 trigger|屏 screen|蔽 shield
信 signal message|号 number signal|息 information|光 optical light|纤 fiber|板 board|槽 slot
坪 floor|房 room
"""

ENGLISH_GLOSSES: dict[str, str] = {}
for _entry in _TABLE.replace("\n", "|").split("|"):
    if _entry:
        _character, _, _gloss = _entry.partition(" ")
        ENGLISH_GLOSSES.setdefault(_character, _gloss)
