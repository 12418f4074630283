-- KEYS: bucket, pending changes, the index of these changes by age. ARGV for each change: its field, the version whose devices
-- were read, and "end", or "@" and a cursor.
-- Records the progress. "end" means that all devices were read. The script then removes the change, unless the change has a
-- newer version. A newer change stays, without progress.
for i = 1, #ARGV, 3 do
    local field, version, to = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    local newest = string.match(redis.call('HGET', KEYS[2], field) or '', '^%d+')
    if newest and to ~= 'end' then
        redis.call('HSET', KEYS[2], field, newest .. ':' .. version .. ':' .. string.sub(to, 2))
    elseif newest == version then
        redis.call('HDEL', KEYS[2], field)
        redis.call('ZREM', KEYS[3], field)
    elseif newest then
        redis.call('HSET', KEYS[2], field, newest)
        redis.call('ZADD', KEYS[3], newest, field)
    end
end
-- An earlier run may have removed the changes without confirmation. A write makes the replicas confirm that.
local clock = redis.call('HGET', KEYS[1], '\tc')
if clock then redis.call('HSET', KEYS[1], '\tc', clock) end
return 1
