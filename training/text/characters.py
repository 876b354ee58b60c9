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
坪 floor|房 room|没 not none|为 is for|通 through communicate|位 bit position|纠 correct|自 self
一 one|置 set place|对 correct pair|统 system unite|系 system|与 and with|障 fault obstacle
现 appear now|故 fault reason|期 period expect|式 mode form|来 come from|标 mark target|事 event
换 change swap|转 turn forward|全 all whole|条 item line|弃 abandon give up|令 command|记 record
放 release put|插 insert plug|略 ignore skip|于 at in|效 valid effect|注 note register|达 reach
符 match symbol|速 speed|按 by press|轮 round rotate|从 from|消 clear cancel|护 protect
提 raise submit|储 store|特 special|打 open print|因 because|输 transfer|传 transmit
离 offline leave|比 ratio compare|第 number ordinal|偏 offset deviate|切 switch cut
生 occur produce|再 again|续 continue|选 elect choose|序 order sequence|询 query|持 hold keep
就 ready then|环 ring loop|员 member|客 client guest|项 item|实 real actual|单 single order
频 frequency|寄 register|预 pre predict|答 answer|装 install|绪 ready|资 resource|合 merge fit
组 group|需 need|余 remaining spare|耗 consume cost|册 register|隔 interval isolate
交 exchange submit|算 compute|子 child sub|尽 exhausted end|将 will|保 protect keep|示 show
以 by with|受 receive accept|片 chip slice|杀 kill|解 resolve decode|支 branch support
差 difference bad|逐 each one by one|只 only|字 word character|会 session meeting|别 other
性 property|探 probe detect|引 index lead|道 channel road|释 release free|留 keep remain
忽 ignore|带 band bring|视 view|宽 width|活 active alive|描 scan describe|缆 cable|剩 remaining
整 whole adjust|例 instance example|采 collect sample|住 hold stuck|映 map|射 map emit
代 generation replace|适 suit adapt|所 place all|原 original reason|知 know notify|域 domain
守 guard daemon|果 result|毕 finished|卸 unload unmount|扫 scan sweep|排 queue arrange
题 problem|暂 temporary pause|维 maintain|立 establish|演 drill perform|遇 encounter|栈 stack
或 or|漏 leak miss|方 side|识 recognize|远 remote far|跑 run|奇 odd|偶 even|供 supply
去 go remove|默 default silent|巡 patrol inspect|继 continue|规 rule|里 inside|向 toward
优 optimal prefer|仍 still|直 direct|元 unit meta|芯 chip core|反 reverse against|感 sensor feel
意 unexpected intend|要 need want|联 connect join|议 protocol discuss|和 and|塞 block jam
句 handle sentence|柄 handle|判 judge|长 long|推 push|话 session talk|许 permit allow
场 field site|似 similar|闲 idle|力 force power|冗 redundant|影 shadow affect|手 hand manual
做 do make|导 lead guide|卷 volume|境 environment|租 lease tenant|双 double dual
协 protocol assist|商 negotiate merchant|言 speech|近 near recent|短 short|类 class kind|零 zero
阻 block resist|都 all|析 parse analyze|给 give|否 no deny|看 watch look|疑 suspect|范 range
申 apply request|共 shared total|操 operate|顶 top|先 first|何 any what|介 medium
质 medium quality|拔 pull unplug|走 go walk|柜 cabinet rack|见 see|该 this should|缩 shrink
绑 bind|也 also|约 about limit|则 then rule|工 work|把 handle put|平 flat average|得 get
属 belong attribute|陷 trap defect|且 and|着 on still|泄 leak|尝 try taste|播 broadcast play
台 set console|须 must|抢 preempt grab|随 random follow|象 object|函 function letter|允 allow
安 safe install|微 micro|暴 burst violent|脚 script foot|阵 array|明 clear bright|之 of
身 body self|键 key|人 person manual|累 accumulate|封 block seal|签 sign label|逻 logic
辑 logic edit|望 expect hope|水 water level|额 quota amount|头 head|箱 box case|即 immediately
却 but cool|液 liquid|齐 aligned complete|尚 yet still|首 first head|确 confirm exact|擎 engine
门 gate door|负 negative load|迭 iterate|套 socket set|凭 credential|衡 balance|获 obtain
久 long time|稍 slightly later|落 fall land|听 listen|省 save province|样 sample|如 as if
顿 pause stall|此 this|根 root|循 loop cycle|准 accurate ready|格 format grid|刷 refresh flush
照 photo as|图 image map|波 wave|相 phase mutual|冷 cold cool|考 reference|窗 window
其 its other|积 accumulate|狗 watchdog|经 already via|残 residual|静 silent static
摘 remove pick|避 avoid|账 account|临 temporary near|亡 dead|较 compare rather|滚 roll
干 dry interfere|历 history|截 cut intercept|树 tree|太 too|享 share|早 early|及 and reach
充 charge fill|灯 lamp light|索 index search|废 waste obsolete|阶 stage|邻 neighbor
抓 capture grab|框 frame box|盖 cover|补 patch fill|裁 cut arbitrate|邮 mail|围 around range
诊 diagnose|真 true|役 service|又 again|归 archive return|档 file archive|各 each|两 two both
钥 key|体 body|但 but|拓 topology|扑 topology|产 produce|展 expand|基 base|兼 compatible|填 fill
紧 urgent tight|途 way|摆 swing|译 translate compile|游 stream swim|拿 take|递 deliver
寿 life lifetime|派 dispatch|永 permanent forever|举 elect raise|脏 dirty|净 clean|帧 frame
破 broken|依 depend|赖 depend|污 dirty pollute|繁 frequent|普 general|滴 drop|领 lead|钮 button
遗 lost left|厂 vendor factory|宕 down crash|孤 orphan|儿 child|混 mixed|杂 complex|述 state
市 market|替 replace|仲 arbitrate|综 overall|具 tool|擦 erase|拷 copy|烧 burn|串 serial string
三 three|跟 follow|者 person one|激 activate laser|际 actual|布 publish spread|他 other he
冻 freeze|溯 trace back|免 avoid free|靠 rely near|而 and but|半 half|必 must|每 every
梯 ladder gradient|尾 tail|编 compile number|独 alone exclusive|桥 bridge|绕 bypass|姊 sister
妹 sister|急 urgent|愈 heal more|脱 detach off|握 handshake hold|销 destroy cancel
投 deliver throw|休 rest sleep|眠 sleep|印 print|捕 catch|畸 malformed|形 form shape|垃 garbage
圾 garbage|勉 barely|追 catch up append|怪 strange|想 think|饿 starve|专 dedicated|染 pollute
帮 help|助 help|乎 almost|倒 backward fall|闰 leap|唤 wake|醒 wake|论 discuss|措 measure
施 apply|颗 piece|律 rule|马 horse|评 evaluate|救 rescue|亮 bright on|撑 support full|曾 once
居 live|闸 gate breaker|绳 rope|漂 drift|偿 compensate|拆 remove split|眼 eye|架 rack frame
滞 stall lag|遍 times all|让 yield let|轻 light minor|熄 off extinguish|灭 off extinguish
踪 trace|精 precise|社 society|忙 busy|深 deep|佳 good|彻 thorough|底 bottom|贝 copy shell
堆 heap|剔 remove reject|灾 disaster|难 difficult|拥 congested own|乱 disorder|跌 fall
观 observe|察 observe|遂 then|般 general|局 local board|六 six|猜 guess|欲 want|峰 peak|刺 spike
顺 order smooth|利 benefit|防 prevent fire|吞 swallow throughput|吐 throughput spit
吃 eat consume|跨 cross|荐 recommend|绿 green|托 hold entrust|燥 dry|覆 overwrite cover
跃 active jump|往 toward|遭 suffer|黑 black|史 history|掩 mask|纯 pure|附 attach|喧 noise
哗 noise|轨 rail track|种 kind seed|飞 fly|剪 cut trim|张 sheet|弹 pop elastic|烤 bake|己 self
详 detail|违 violate|某 some|缀 suffix|侵 invade|浮 float|雅 elegant graceful
仓 warehouse repository|陈 old stale|忍 tolerate|夜 night|挪 move|脑 brain|裂 split crack
闯 break in|公 public|声 sound|匿 anonymous hide|责 duty|碍 hinder|陌 unknown strange
沿 edge along|宿 host|义 define meaning|毁 destroy|戳 stamp|罢 stop|审 audit review|鼠 mouse
含 contain|碎 fragment broken|二 two|五 five|四 four|七 seven|八 eight|九 nine|十 ten|百 hundred
千 thousand|万 ten thousand|亿 hundred million|年 year|月 month|昨 yesterday|今 today now|付 pay
款 payment money|买 buy|卖 sell|价 price|品 goods product|店 shop|券 coupon|银 bank silver
币 currency|税 tax|票 ticket invoice|车 vehicle car|站 station site|订 order subscribe
阅 read subscribe|费 fee|扣 deduct|撤 withdraw revoke|办 handle|司 company|研 research
究 research|师 teacher|团 group|音 audio|浏 browse|览 browse|爬 crawl|虫 bug worm|毒 virus
攻 attack|击 attack hit|墙 firewall wall|钓 phishing|洞 vulnerability hole|隐 hidden|私 private
敏 sensitive|鉴 authenticate|角 role corner|色 color role|凌 early morning|晨 morning|午 noon
晚 evening|季 season quarter|假 false holiday|哈 hash|希 hash|桶 bucket|臂 arm|湿 humidity wet
烟 smoke|火 fire|震 vibration|噪 noise|油 oil|气 gas air|泵 pump|阀 valve|轴 axis shaft
涡 turbine|井 well|桩 pile charger|坐 sit
"""

ENGLISH_GLOSSES: dict[str, str] = {}
for _entry in _TABLE.replace("\n", "|").split("|"):
    if _entry:
        _character, _, _gloss = _entry.partition(" ")
        ENGLISH_GLOSSES.setdefault(_character, _gloss)
