-- KEYS: deferred pushes, their due times. ARGV for each device: its name; the push, or "" to remove it; the due time, or "".
-- Stores or removes the deferred pushes.
for i = 1, #ARGV, 3 do
    local device, push, due = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    if push ~= '' then redis.call('HSET', KEYS[1], device, push) else redis.call('HDEL', KEYS[1], device) end
    if due ~= '' then redis.call('ZADD', KEYS[2], due, device) else redis.call('ZREM', KEYS[2], device) end
end
-- An earlier run may have removed pushes without confirmation. A write makes the replicas confirm that.
redis.call('HSET', KEYS[1], '\t', '')
return 1
