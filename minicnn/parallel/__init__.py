"""Training on several ranks: the paper's two columns (model parallel), data parallel, and "one weird trick" (hybrid).

    comm.py           collective operations; backends: threads.py (threads), mpi.py (processes), nccl.py (one GPU each)
    sharding.py       how the rows and channels of an array are distributed over ranks
    transfer.py       resharding layers: all-gather forward, reduce-scatter backward, halo exchange
    partition.py      from a network to the part of one rank
    parallel_net.py   that part as a network: `columns(net, comm)`, `data(net, comm)`, `hybrid(net, comm)`
    net_ranks.py      its distributed hooks, `net.ranks`
    ledger.py         statistics of communication: bytes and time per exchange
    launch.py         start ranks as threads of this process, or join those started by mpiexec
"""
