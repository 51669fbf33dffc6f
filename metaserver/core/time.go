package core

// A leader counts only time in which it could have heard of its clients: one
// that was stopped (a paused process, a host without a free CPU) finds every
// deadline passed at once when it goes on, while the renewals still wait in its
// sockets. So it wakes up once a beat, and what it is late by is taken out of
// its time: to all deadlines the standstill did not happen. A client counts
// real time, so it never believes that its session lives longer.

// beat is the longest time between Ticks of a leader, and what a Tick may be
// late without being taken for a standstill: 1 s of 15 s.
func (s *Server) beat() Time { return s.cfg.TTL / 15 }

// pass moves the core's time on to now, less what the core stood still.
func (s *Server) pass(now Time) {
	t := now - s.lost
	if s.timerSet != 0 && t > s.timerSet+s.beat() {
		awake := max(s.now, s.timerSet)
		s.stats.Standstills++
		s.lost += t - awake
		t = awake
	}
	s.now = max(s.now, t)
}

// setTimer asks for the Tick at which something is due, within a beat while
// anything will be. A Tick that comes earlier will do.
func (s *Server) setTimer() {
	if s.due == 0 {
		return
	}
	if at := min(s.due, s.now+s.beat()); s.timerSet == 0 || at < s.timerSet {
		s.timerSet = at
		s.emit(Timer{at + s.lost})
	}
}
