-- KEYS: bucket. If a push of the whole type becomes pending, also: pending changes, the index of these changes by age.
-- ARGV: now, the time of the store's creation. If a push becomes pending, also: the lowest allowed version, and the entry
-- that records that this change is under way.
-- Marks all passes of the bucket. Returns the version.
local now = tonumber(ARGV[1])
local head = redis.call('HMGET', KEYS[1], '\tc', '\td', '\tl')
local clock = string.format('%.0f', math.max(tonumber(head[1] or 0) + 1, now, tonumber(ARGV[3] or 0)))
local last = math.max(tonumber(head[2] or 0), tonumber(head[3] or 0), tonumber(ARGV[2]))
local date = string.format('%.0f', math.max(math.floor(now / 1000000), last + 1))
redis.call('HSET', KEYS[1], '\tc', clock, '\tv', clock, '\td', date, '\tl', date)
if KEYS[2] then
    local progress = string.match(redis.call('HGET', KEYS[2], '\tall') or '', '^%d+(.*)$') or ''
    redis.call('HSET', KEYS[2], '\tall', clock .. progress)
    redis.call('ZADD', KEYS[3], 'NX', ARGV[1], '\tall')
    redis.call('ZREM', KEYS[3], ARGV[4])
end
return clock
