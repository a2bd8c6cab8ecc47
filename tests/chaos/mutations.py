"""Small mistakes that somebody could make in the product, and the tests that must notice each of them.

Each is an exact replacement of text in one file of a copy of the clone; see :mod:`tests.chaos.test_mutations`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CONTRACT = 'tests/stores/test_contract.py::'
WORK = 'tests/stores/test_work.py::'
ORDER = 'tests/chaos/test_order.py::'
MODELS = 'tests/chaos/test_models.py::'
STORE_MODEL = MODELS + 'test_a_store_does_what_its_model_does_whoever_comes_in_whatever_order'
WORLD = (
    'tests/chaos/test_world.py::'
    'test_whatever_happens_between_any_two_statements_nothing_is_lost_or_stuck_and_nobody_is_early'
)
VERDICT = MODELS + 'test_a_gate_is_open_exactly_when_all_that_closes_it_is_done'
RELEASES = MODELS + 'test_a_plan_stays_right_over_many_releases'
GATE = MODELS + 'test_a_gate_never_passes_unless_it_is_open_and_armed'
POLICY = 'tests/unit/test_policy.py'
LEAVING = 'tests/processes/test_leaving.py::'
FORKING = 'tests/processes/test_forking.py::'
BATCHES = 'tests/batches/test_batches.py::'
BATCH_CHAOS = 'tests/chaos/test_batches.py::'

SQL_STORE = 'stores/sqlalchemy/store.py'
SQL_WORK = 'stores/sqlalchemy/work.py'
MING = 'stores/ming.py'


@dataclass(frozen=True)
class Mutation:
    """One mistake.

    :param name: what was done to the product.
    :param path: below ``tgext/evolve``.
    :param old: the text that is replaced; it is there exactly once.
    :param tests: what must notice, as pytest names it.
    """

    name: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]

    def apply(self, root: Path) -> None:
        """:raises LookupError: the product has moved on, and this must follow it."""
        path = root / 'tgext' / 'evolve' / self.path
        text = path.read_text('utf-8')
        found = text.count(self.old)
        if found != 1:
            raise LookupError(
                f'the product has moved on: the text that {self.name!r} replaces is {found} times in {self.path}, '
                f'and must be there once. Find what took its place, and change tests/chaos/mutations.py.\n{self.old}'
            )
        path.write_text(text.replace(self.old, self.new), 'utf-8')


MUTATIONS = (
    # -- the fence
    Mutation(
        'the fence is removed (SQL)',
        SQL_STORE,
        '.where(*self._row_of(attempt), history.c.state == State.RUNNING.value)',
        '.where(*self._row_of(attempt))',
        (CONTRACT + 'test_a_deposed_holder_can_record_nothing[sqlite]', f'{STORE_MODEL}[SQLiteMachine]', WORLD),
    ),
    Mutation(
        'the fence is removed (MongoDB)',
        MING,
        "{**own_row, 'state': State.RUNNING.value}",
        'own_row',
        (CONTRACT + 'test_a_deposed_holder_can_record_nothing[mim]', f'{STORE_MODEL}[MimMachine]'),
    ),
    Mutation(
        'a refused record of a transactional evolution is taken for one',
        SQL_WORK,
        '            if not record(connection):\n                raise',
        '            if not record(connection) and False:\n                raise',
        (
            ORDER + 'test_what_was_marked_meanwhile_is_rolled_back[zope-postgresql]',
            ORDER + 'test_what_was_marked_meanwhile_is_rolled_back[own-commits-mariadb]',
        ),
    ),
    Mutation(
        'the record is written outside of the transaction of the work',
        SQL_STORE,
        'lambda connection: self._done(connection, attempt, planned))',
        'lambda connection: self.record(attempt, State.DONE, patience=0))',
        (
            ORDER + 'test_data_and_record_are_one_transaction[zope-postgresql]',
            ORDER + 'test_data_and_record_are_one_transaction[own-commits-sqlite]',
        ),
    ),
    Mutation(
        'the old attempts are marked after the history was read',
        'runner.py',
        '            older = self._interrupt_older(lease)\n'
        "            point('after-marking')\n"
        '            while not self.leaving.is_set():\n'
        '                snapshot = self.ledger.snapshot()\n',
        '            before = self.store.snapshot()\n'
        '            older = self._interrupt_older(lease)\n'
        '            while not self.leaving.is_set():\n'
        '                snapshot, before = before or self.store.snapshot(), None\n',
        (ORDER + 'test_what_was_recorded_until_it_was_marked_is_not_run_again[sqlite]',),
    ),
    Mutation(
        'old attempts are not marked at all',
        SQL_STORE,
        '        if not found:\n            return []\n        try:\n            self._run(mark',
        '        return found\n        try:\n            self._run(mark',
        (
            CONTRACT + 'test_a_deposed_holder_can_record_nothing[sqlite]',
            f'{STORE_MODEL}[SQLiteMachine]',
            WORLD,
        ),
    ),
    Mutation(
        'who records that it begins does not ask whether it still has the lease',
        'runner.py',
        '            lease.renew()\n        except LeaseLost:',
        '            pass\n        except LeaseLost:',
        (ORDER + 'test_who_lost_the_lease_before_it_was_sure_of_it_runs_nothing[sqlite]', WORLD),
    ),
    # -- the lease
    Mutation(
        'the lease is not renewed',
        'lease.py',
        '        while self._sleep(pause):\n',
        '        while self._sleep(pause) and False:\n',
        (ORDER + 'test_a_lease_is_renewed_while_it_is_held[sqlite]',),
    ),
    Mutation(
        'the clock of the process decides whether a lease lives',
        'stores/base.py',
        ' <= self.now < self.expires_at',
        ' <= time.time() * 1000 < self.expires_at',
        (f'{STORE_MODEL}[SQLiteMachine]', WORLD),
    ),
    Mutation(
        'a lease expires by the clock of the process',
        SQL_STORE,
        '                    token=token,\n'
        '                    ttl=milliseconds,\n'
        '                    expires_at=database_now() + milliseconds,',
        '                    token=token,\n'
        '                    ttl=milliseconds,\n'
        '                    expires_at=round(time.time() * 1000) + milliseconds,',
        (f'{STORE_MODEL}[SQLiteMachine]', WORLD),
    ),
    Mutation(
        'a clock that jumped back freezes the lease',
        'stores/base.py',
        'self.expires_at - self.ttl - CLOCK_SLACK <= self.now < self.expires_at',
        'self.now < self.expires_at',
        (f'{STORE_MODEL}[SQLiteMachine]', f'{STORE_MODEL}[MimMachine]'),
    ),
    Mutation(
        'the token does not grow (SQL)',
        SQL_STORE,
        'token = max(row.token, highest) + 1',
        'token = max(row.token, 1)',
        (CONTRACT + 'test_its_own_lease_is_taken_anew_with_a_larger_token[sqlite]', f'{STORE_MODEL}[SQLiteMachine]'),
    ),
    Mutation(
        'the token does not grow (MongoDB)',
        MING,
        'token = max(row.token, highest) + 1',
        'token = max(row.token, 1)',
        (CONTRACT + 'test_its_own_lease_is_taken_anew_with_a_larger_token[mim]', f'{STORE_MODEL}[MimMachine]'),
    ),
    Mutation(
        'a lease is taken without comparing (SQL)',
        SQL_STORE,
        '                    lease.c.token == row.token,\n'
        '                    lease.c.owner == row.owner,\n'
        '                    lease.c.expires_at == row.expires_at,\n',
        '',
        (
            ORDER + 'test_a_lease_that_changed_since_it_was_looked_at_is_not_taken[a rival-sqlite]',
            ORDER + 'test_a_lease_that_changed_since_it_was_looked_at_is_not_taken[its holder-sqlite]',
        ),
    ),
    Mutation(
        'a lease is taken without comparing its time (MongoDB)',
        MING,
        "                    'expires_at': row.expires_at,\n                },\n",
        '                },\n',
        (ORDER + 'test_a_lease_that_changed_since_it_was_looked_at_is_not_taken[its holder-mongodb]',),
    ),
    Mutation(
        'the heartbeat swallows that the lease is lost',
        'lease.py',
        '        elif renewal is Renewal.LOST:\n            self._lost = True',
        '        elif renewal is Renewal.LOST:\n            self._renewed = asked',
        (
            ORDER + 'test_who_is_deposed_hears_of_it_at_the_next_renewal[sqlite]',
            ORDER + 'test_a_heartbeat_that_lost_the_lease_stops_the_evolution[sqlite]',
        ),
    ),
    Mutation(
        'who cannot renew goes on for ever',
        'lease.py',
        'time.monotonic() - self._renewed > self.ttl',
        'time.monotonic() - self._renewed > 1e9',
        (ORDER + 'test_who_cannot_renew_for_one_lease_gives_up_by_its_own_clock[sqlite]',),
    ),
    Mutation(
        'the lease is given back while user code still runs',
        'evolver.py',
        '        self._left_at = time.monotonic()\n        self._leaving.set()\n',
        '        self._left_at = time.monotonic()\n        self._leaving.set()\n'
        '        from .stores.base import Grant\n'
        '        held = self.store.snapshot().lease\n'
        '        if held is not None and self._is_mine(held):\n'
        '            self.store.release(Grant(self._owner, held.token))\n',
        (
            LEAVING + 'test_the_lease_is_kept_while_code_that_does_not_listen_still_writes[postgresql]',
            LEAVING + 'test_the_lease_is_kept_while_code_that_does_not_listen_still_writes[mongodb]',
        ),
    ),
    Mutation(
        'a lease is kept until it expires, though nothing is left to do',
        'lease.py',
        '        if not self._lost:\n            try:\n                self.store.release(self.grant)',
        '        if self._lost:\n            try:\n                self.store.release(self.grant)',
        (LEAVING + 'test_the_lease_is_free_right_after_the_end',),
    ),
    # -- the gate
    Mutation(
        'the gate opens when the lease is free',
        'agenda.py',
        '    if not agenda.pending:\n        return Verdict(Serving.EVERYTHING, Reason.COMPLETE)',
        '    if not agenda.pending or not lease_alive:\n        return Verdict(Serving.EVERYTHING, Reason.COMPLETE)',
        (VERDICT, WORLD),
    ),
    Mutation(
        'the gate opens when the database is away',
        'evolver.py',
        'return self._move(Verdict(Serving.NOTHING, reason, detail=str(error)))',
        'return self._move(Verdict(Serving.EVERYTHING, reason, detail=str(error)))',
        (WORLD, 'tests/web/test_the_503.py::test_the_public_learns_nothing_of_the_database'),
    ),
    Mutation(
        'a forked process passes before it has looked for itself',
        'gate.py',
        'self.passing = self._armed and self.is_open',
        'self.passing = self.is_open',
        (GATE, 'tests/unit/test_gate.py::TestGate::test_passes_only_when_armed_and_open'),
    ),
    Mutation(
        'HEAD is served while the gate is closed',
        'component.py',
        "verdict.lets_through(environ['REQUEST_METHOD']) or",
        "environ['REQUEST_METHOD'] == 'HEAD' or verdict.lets_through(environ['REQUEST_METHOD']) or",
        ('tests/web/test_the_503.py::test_head_has_the_headers_of_get_and_no_body',),
    ),
    Mutation(
        'writes pass while only reads may',
        'gate.py',
        "return method in ('GET', 'HEAD', 'OPTIONS')",
        'return True',
        (GATE, 'tests/web/test_modes.py::test_reads_are_served_while_an_evolution_allows_them'),
    ),
    Mutation(
        'what keeps users out is not announced',
        'runner.py',
        'if self._announced or not self.announce or',
        'if self.announce or not self.announce or',
        (ORDER + 'test_what_keeps_users_out_stands_on_record_for_one_watch_before_it_begins[sqlite]',),
    ),
    Mutation(
        'what a newer release runs closes nothing',
        'agenda.py',
        '    if newer.rank < own.rank:',
        '    if newer.rank < 0:',
        (VERDICT,),
    ),
    # -- the plan and its rules
    Mutation(
        '`replaces` is ignored',
        'plan.py',
        'return planned.id in settled or any(name in settled for name in planned.replaces)',
        'return planned.id in settled',
        (RELEASES, VERDICT),
    ),
    Mutation(
        'dependencies do not count in the order',
        'plan.py',
        '            missing[number] += 1\n',
        '            missing[number] += 0\n',
        (RELEASES, 'tests/unit/test_plan.py::TestOrder::test_dependencies_come_first'),
    ),
    Mutation(
        'interrupted attempts are never counted',
        'policy.py',
        'interruptions += not attempt.left_in_order',
        'interruptions += 0',
        (POLICY,),
    ),
    Mutation(
        'what raised is run again though nobody said that this is safe',
        'policy.py',
        'may = planned.rerunnable if planned.rerunnable is not None else planned.transactional',
        'may = planned.rerunnable is not False',
        (POLICY,),
    ),
    # -- sessions and processes
    Mutation(
        "everybody's session is ended with that of the deposed holder",
        'stores/sqlalchemy/dialects.py',
        'WHERE application_name = :name AND pid <> pg_backend_pid()',
        'WHERE CAST(:name AS text) IS NOT NULL AND datname = current_database() AND pid <> pg_backend_pid()',
        (ORDER + 'test_only_the_session_of_the_deposed_holder_is_ended[postgresql]',),
    ),
    Mutation(
        'nobody ends the session of the deposed holder',
        SQL_STORE,
        'self._dialect.end_sessions(connection, owners)',
        'pass',
        (LEAVING + 'test_a_holder_that_was_paused_in_a_transaction_cannot_commit_it[postgresql]',),
    ),
    Mutation(
        'a commit by the evolution itself is not found out',
        SQL_WORK,
        "                raise broke(f'it committed or rolled back{also}') from error",
        '                pass',
        (WORK + 'test_a_transactional_one_that_ends_its_transaction_is_found_out[commit_by_sql-sqlite]',),
    ),
    Mutation(
        "SQLite's transaction begins where the driver likes",
        'stores/sqlalchemy/dialects.py',
        "            connection.exec_driver_sql('BEGIN IMMEDIATE')",
        '            pass',
        (ORDER + 'test_on_sqlite_nobody_writes_between_what_an_evolution_reads_and_what_it_writes[zope-sqlite]',),
    ),
    Mutation(
        'a transaction whose commit failed goes back to the pool as it is',
        SQL_WORK,
        '                    dbapi_connection.rollback()',
        '                    pass',
        (ORDER + 'test_a_commit_that_fails_leaves_neither_data_nor_a_transaction[transactional-zope-sqlite]',),
    ),
    Mutation(
        'a child that leaves the evolution goes on as its parent',
        'processes.py',
        '    if os.getpid() != here:\n        for stream',
        '    if os.getpid() != here and False:\n        for stream',
        (FORKING + 'test_a_child_that_leaves_the_evolution_records_nothing[fork_and_return-sqlite]',),
    ),
    # -- batches
    Mutation(
        'a checkpoint moves for whoever asks (SQL)',
        SQL_STORE,
        '                *self._own_checkpoint(attempt),\n                checkpoint.c.partition',
        '                *self._checkpoints_of([attempt.evolution_id]),\n                checkpoint.c.partition',
        (
            BATCHES + 'test_a_deposed_holder_moves_no_checkpoint[sqlite]',
            BATCH_CHAOS + 'test_who_was_deposed_between_two_batches_has_the_next_one_refused[sqlite]',
        ),
    ),
    Mutation(
        'a checkpoint moves for whoever asks (MongoDB)',
        MING,
        'return {**self._own_checkpoint(attempt), **from_here}',
        "return {**self._checkpoints_of(attempt.evolution_id), 'partition': checkpoint.partition}",
        (BATCH_CHAOS + 'test_who_was_deposed_between_two_batches_has_the_next_one_refused[mongodb-without]',),
    ),
    Mutation(
        'a checkpoint is saved in a transaction of its own, after the work of its batch',
        SQL_STORE,
        '            around = work.transactional(attempt, planned, save)',
        '            around = work.plain(lambda: self._run(save))',
        (
            BATCH_CHAOS + 'test_who_was_deposed_between_two_batches_has_the_next_one_refused[sqlite]',
            BATCHES + 'test_a_deposed_holder_moves_no_checkpoint[sqlite]',
        ),
    ),
    Mutation(
        'the answer of the fence of a batch is not read (MongoDB)',
        MING,
        'if not self._run(lambda: self._collection(CHECKPOINT).update_one(where, change).matched_count):',
        'if self._run(lambda: self._collection(CHECKPOINT).update_one(where, change).matched_count) < 0:',
        (BATCH_CHAOS + 'test_who_was_deposed_between_two_batches_has_the_next_one_refused[mongodb-without]',),
    ),
    Mutation(
        'a batch and its checkpoint are in no transaction (MongoDB)',
        MING,
        'with transaction(seat.session):',
        'with suppress():',
        (BATCHES + 'test_a_batch_that_raises_leaves_nothing_of_itself[mongodb]',),
    ),
    Mutation(
        'nobody ends the session of an open batch (MongoDB)',
        MING,
        'refused = self._end_sessions(noted)',
        'refused = None',
        (BATCHES + 'test_who_takes_over_ends_the_session_of_an_open_batch_and_none_else[mongodb]',),
    ),
    Mutation(
        'who was deposed may still make checkpoints (SQL)',
        SQL_STORE,
        'values(state=State.RUNNING.value)).rowcount != 1:',
        'values(state=State.RUNNING.value)).rowcount < 0:',
        (
            BATCH_CHAOS
            + 'test_who_was_deposed_before_its_first_batch_makes_no_checkpoint_and_says_no_more_than_that[sqlite]',
        ),
    ),
    Mutation(
        'the checkpoints that a deposed holder makes are taken for those of its successor (MongoDB)',
        MING,
        "'made': attempt.token,",
        "'made': 0,",
        (
            BATCH_CHAOS
            + 'test_who_was_deposed_before_its_first_batch_makes_no_checkpoint_and_says_no_more_than_that[mongodb]',
        ),
    ),
    Mutation(
        'who takes over leaves the checkpoints to whom it deposed',
        SQL_STORE,
        '                        checkpoint.c.token < grant.token,\n                    )\n'
        "                    .values(owner='')",
        '                        checkpoint.c.token < grant.token,\n                    )\n'
        '                    .values(owner=checkpoint.c.owner)',
        (BATCHES + 'test_a_deposed_holder_moves_no_checkpoint[sqlite]',),
    ),
    Mutation(
        'dropped checkpoints are not dropped (SQL)',
        SQL_STORE,
        "connection.execute(update(checkpoint).where(*self._own_checkpoint(attempt)).values(owner=''))",
        'pass',
        (BATCHES + 'test_a_checkpoint_that_was_dropped_is_moved_by_nobody_until_it_is_taken_again[sqlite]',),
    ),
    Mutation(
        'dropped checkpoints are not dropped (MongoDB)',
        MING,
        "self._run(lambda: self._seize(self._own_checkpoint(attempt), {'owner': ''}))",
        'pass',
        (BATCHES + 'test_a_checkpoint_that_was_dropped_is_moved_by_nobody_until_it_is_taken_again[mongodb]',),
    ),
    Mutation(
        'the next process begins with the first batch again',
        'partitions.py',
        '        if taken and all(each.until is not None for each in taken):\n',
        '        if taken:\n',
        (BATCH_CHAOS + 'test_a_kill_at_any_point_of_a_batch_loses_nothing_and_counts_nothing_twice[sqlite]',),
    ),
    Mutation(
        'half of the checkpoints is taken for all of them',
        'partitions.py',
        '        if taken and all(each.until is not None for each in taken):\n',
        '        if taken and False:\n',
        (BATCH_CHAOS + 'test_a_kill_at_any_point_of_a_batch_loses_nothing_and_counts_nothing_twice[mongodb]',),
    ),
    Mutation(
        "nobody ends the sessions of a deposed holder's partitions",
        SQL_STORE,
        '                owners |= {_worker(owner, number)',
        '                _ = {_worker(owner, number)',
        (
            BATCH_CHAOS + 'test_the_open_batch_of_a_paused_holder_keeps_its_successor_out_for_no_longer_than_the_lease'
            '[postgresql]',
        ),
    ),
    Mutation(
        'threads go on with their partitions when the process leaves',
        'partitions.py',
        'if self._home.stop.is_set() or self._home.leaves():',
        'if self._home.stop.is_set():',
        (
            BATCH_CHAOS + 'test_sigterm_ends_threads_after_their_batches_and_the_next_process_goes_on_from_there'
            '[postgresql]',
        ),
    ),
    Mutation(
        'the last batches of threads are refused when the process leaves',
        'partitions.py',
        '        if self._are_threads():\n            for',
        '        if self._are_threads() and False:\n            for',
        (
            BATCH_CHAOS + 'test_sigterm_ends_threads_after_their_batches_and_the_next_process_goes_on_from_there'
            '[mongodb]',
        ),
    ),
    Mutation(
        'a batched evolution that gets on is stopped all the same',
        'policy.py',
        '    return (attempt.reached or 0) > (reached or 0)',
        '    return False',
        (BATCHES + 'test_attempts_that_get_on_do_not_count_towards_the_last_one[sqlite]', POLICY),
    ),
    # -- looks that know earlier ones
    Mutation(
        'the mark of a history misses what becomes of attempts',
        SQL_STORE,
        '    *(func.count(case((history.c.state == state.value, 1))) for state in State),\n',
        '',
        (CONTRACT + 'test_a_look_that_knows_an_earlier_one_sees_all_that_was_recorded_since[sqlite]',),
    ),
    Mutation(
        'the mark of a history misses what becomes of attempts (MongoDB)',
        MING,
        "    **{f'is_{state.value}': _number({'$eq': ['$state', state.value]}) for state in State},\n",
        '',
        (CONTRACT + 'test_a_look_that_knows_an_earlier_one_sees_all_that_was_recorded_since[mongodb]',),
    ),
    Mutation(
        'a history is marked after it was read',
        SQL_STORE,
        '            return Snapshot(self._history(connection), row, now, mark)\n',
        '            read = self._history(connection)\n'
        '            return Snapshot(read, row, now, self._lease_and_mark(connection)[2])\n',
        (CONTRACT + 'test_what_is_recorded_while_a_look_reads_shows_in_the_next_one[sqlite]',),
    ),
    Mutation(
        'a look takes the lease from an earlier one',
        SQL_STORE,
        'return replace(known, lease=row, now=now)',
        'return known',
        (
            CONTRACT
            + 'test_a_look_that_knows_an_earlier_one_reads_no_history_twice_and_always_the_lease_and_the_clock[sqlite]',
        ),
    ),
)
