package program

// The operations of tables whose rows have candidates of their own, and the optimizers of tables beside RowAdam.
const (
	// LookupDot: (table [n,d] Param, Const or State, idx [m,w], a [m,d]) -> (s [m,w]). s_ij is the inner product of a_i
	// and the row of the table that idx_ij names: lane l of Lanes is one chain of fused multiply-adds of table_c a_ic over
	// c = l, l+16, l+32 ... in ascending order from 0; the lanes are then folded as LaneSum folds them. 0 where idx_ij is
	// none. The same bits everywhere.
	LookupDot Op = "lookup_dot"
	// LookupWeighted: (table [n,d] Param, Const or State, idx [m,w], s [m,w]) -> (y [m,d]). y_i is the sum of the rows of
	// the table that row i of idx names, times their s_ij: one chain of fused multiply-adds over j in ascending order from
	// 0, without those that are none. The same bits everywhere. Of LookupDot and LookupWeighted each is the gradient of
	// the other.
	LookupWeighted Op = "lookup_weighted"
	// CandidateSoftmax: (s [m,w], idx [m,w] index, weight [m,1], logq [n] Const or without it) -> (loss [1]). The softmax
	// cross-entropy of the first column, the positive, among the columns of its row, w at least 2; rows have candidates of
	// their own. idx tells what the columns are: column j > 0 counts unless idx_ij is none or the positive itself. With
	// logq, the logarithm of how often each is drawn, as in SampledSoftmax:
	//	b_ij = s_ij, or with logq s_ij - logq[idx_ij] rounded to float32
	//	M_i = max(b_i0, b_ij over the j that count)
	//	e_ij = exp(b_ij - M_i) where j > 0 counts, else 0; x_i = exp(b_i0 - M_i); the differences rounded to float32
	//	N_i = LaneSum(e_i), over all w places; S_i = N_i + x_i
	//	l_i = log(S_i) + (M_i - b_i0), 0 where idx_i0 is none
	//	loss = LaneSum(weight_i l_i) / m
	// Exponentials and terms are as exact as those of SampledSoftmax.
	CandidateSoftmax Op = "candidate_softmax"
	// CandidateSoftmaxGrad: (s, idx, weight, dloss [1], logq or without it) -> (ds [m,w]). With e, N and S as above,
	// c = dloss / m and g_i = (c weight_i) / S_i: ds_ij = g_i e_ij for j > 0 and ds_i0 = -(g_i N_i), each step rounded to
	// float32; 0 in a row whose idx_i0 is none.
	CandidateSoftmaxGrad Op = "candidate_softmax_grad"
	// CandidateBPR: (s [m,w], idx [m,w] index, weight [m,1]) -> (loss [1]). Bayesian personalised ranking (Rendle et al.
	// 2009): the mean over the pairs of the positive, column 0, and each other column of -log sigmoid(s_i0 - s_ij). Which
	// columns count is said by idx as for CandidateSoftmax; the mean is over all m (w-1) places.
	//	z_ij = s_i0 - s_ij rounded to float32
	//	l_i = sum over j > 0 that count of max(-z_ij, 0) + log(1 + exp(-|z_ij|)), 0 where idx_i0 is none
	//	loss = LaneSum(weight_i l_i) / (m (w-1))
	// weight_i l_i is within w+4 units in the last place of weight_i times the sum of the 1 + |z_ij| that count.
	CandidateBPR Op = "candidate_bpr"
	// CandidateBPRGrad: (s, idx, weight, dloss [1]) -> (ds [m,w]). With c = dloss / (m (w-1)), g_i = c weight_i and
	// e_ij = exp(-|z_ij|), 0 where |z_ij| is above 87: r_ij = e_ij / (1 + e_ij) where z_ij is 0 or above, else
	// 1 / (1 + e_ij), which is sigmoid(-z_ij); ds_ij = g_i r_ij where j > 0 counts, else 0; ds_i0 = -LaneSum(ds_i) over
	// all w places, of which the first is 0 there; each step rounded to float32. All 0 in a row whose idx_i0 is none.
	CandidateBPRGrad Op = "candidate_bpr_grad"
	// RowAdagrad: (uses ...[, factor [1]]) -> (param [n,d], acc [n,1] or [n,d]). Adagrad (Duchi et al. 2011) of the rows
	// that have an entry, with their gradients g as RowAdam has them: with one accumulator a row, the row-wise Adagrad of
	// DLRM (Naumov et al. 2019), q is the mean of the g_c g_c, which are summed by lane as LookupDot sums, then divided by
	// d; with one for each element, q_c = g_c g_c. acc = acc + q, p_c = p_c - lr (g_c / (sqrt(acc) + eps) + decay p_c),
	// each step rounded to float32. The same bits everywhere.
	RowAdagrad Op = "row_adagrad"
	// RowSGD: (uses ...[, factor [1]]) -> (param [n,d]). For the rows that have an entry p_c = p_c - lr (g_c + decay p_c),
	// each step rounded to float32. The same bits everywhere.
	RowSGD Op = "row_sgd"
)

// tableOps are those above.
func tableOps() []Op {
	return []Op{LookupDot, LookupWeighted, CandidateSoftmax, CandidateSoftmaxGrad, CandidateBPR, CandidateBPRGrad,
		RowAdagrad, RowSGD}
}
