-- KEYS: note, the calls that recently replaced it. ARGV: name of the call; the expected note; the new note; how many seconds
-- to remember the call. Each note starts with "=", or is "" if there is none.
-- Replaces the note if it is the expected one. Returns 1 if it replaced the note, else 0. If the script runs twice, the second
-- run finds the name of its call and gives the same answer, even if another call replaced the note in between.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local is_done = redis.call('ZSCORE', KEYS[2], ARGV[1])
local note = redis.call('HGET', KEYS[1], 'v')
if not is_done and (note and '=' .. note or '') ~= ARGV[2] then
    -- The answer depends on the note. A write makes the replicas confirm the note.
    if note then redis.call('HSET', KEYS[1], 'v', note) else redis.call('EXPIRE', KEYS[2], ARGV[4]) end
    return 0
end
if not is_done then
    if ARGV[3] == '' then redis.call('HDEL', KEYS[1], 'v') else redis.call('HSET', KEYS[1], 'v', string.sub(ARGV[3], 2)) end
end
redis.call('ZADD', KEYS[2], string.format('%.0f', now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('(%.0f', now - ARGV[4] * 1000000))
redis.call('EXPIRE', KEYS[2], ARGV[4])
return 1
