-- KEYS[1] bucket. ARGV: now, the store's creation.
local now = tonumber(ARGV[1])
local head = redis.call('HMGET', KEYS[1], '\tc', '\td', '\tl')
local clock = string.format('%.0f', math.max(tonumber(head[1] or 0) + 1, now))
local last = math.max(tonumber(head[2] or 0), tonumber(head[3] or 0), tonumber(ARGV[2]))
local date = string.format('%.0f', math.max(math.floor(now / 1000000), last + 1))
redis.call('HSET', KEYS[1], '\tc', clock, '\tv', clock, '\td', date, '\tl', date)
return 1
