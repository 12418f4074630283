-- KEYS[1] bucket. ARGV: now, the store's creation, serial numbers.
local now = tonumber(ARGV[1])
local head = redis.call('HMGET', KEYS[1], '\tc', '\td', '\tl')
local clock = math.max(tonumber(head[1] or 0) + 1, now)
local floor, latest = math.max(tonumber(head[2] or 0), tonumber(ARGV[2])), tonumber(head[3] or 0)
for i = 3, #ARGV do
    local held = redis.call('HGET', KEYS[1], ARGV[i])
    local last = held and tonumber(string.match(held, '^%d+:(%d+)$')) or 0
    local date = math.max(math.floor(now / 1000000), math.max(last, floor) + 1)
    latest = math.max(latest, date)
    redis.call('HSET', KEYS[1], ARGV[i], string.format('%.0f:%.0f', clock, date))
end
redis.call('HSET', KEYS[1], '\tc', string.format('%.0f', clock), '\tl', string.format('%.0f', latest))
return 1
