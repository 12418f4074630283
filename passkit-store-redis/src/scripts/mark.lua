-- KEYS: bucket, and to owe the pushes as well: debts, debts by age. ARGV: now, the store's creation, serial numbers.
local now = tonumber(ARGV[1])
local head = redis.call('HMGET', KEYS[1], '\tc', '\td', '\tl')
local clock = math.max(tonumber(head[1] or 0) + 1, now)
local version = string.format('%.0f', clock)
local floor, latest = math.max(tonumber(head[2] or 0), tonumber(ARGV[2])), tonumber(head[3] or 0)
for i = 3, #ARGV do
    local held = redis.call('HGET', KEYS[1], ARGV[i])
    local last = held and tonumber(string.match(held, '^%d+:(%d+)$')) or 0
    local date = math.max(math.floor(now / 1000000), math.max(last, floor) + 1)
    latest = math.max(latest, date)
    redis.call('HSET', KEYS[1], ARGV[i], version .. string.format(':%.0f', date))
    if KEYS[2] then
        local reached = string.match(redis.call('HGET', KEYS[2], ARGV[i]) or '', '^%d+(.*)$') or ''
        redis.call('HSET', KEYS[2], ARGV[i], version .. reached)
        redis.call('ZADD', KEYS[3], 'NX', ARGV[1], ARGV[i])
    end
end
redis.call('HSET', KEYS[1], '\tc', version, '\tl', string.format('%.0f', latest))
return 1
